package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/quic-go/quic-go"

	"proxyctl/proxy/http3"
)

// Sockets of QUIC and the connections on them. One socket takes the datagrams of
// all its connections; which one each belongs to is in the datagram. So a socket
// lasts until its last connection has ended, also when it is not named any more.

// quicSocket is a socket of QUIC.
type quicSocket struct {
	*net.UDPConn
	transport  *quic.Transport
	listener   *quic.EarlyListener // nil while no connections are accepted
	users      sync.WaitGroup      // connections
	handshakes atomic.Int64        // of which so many are not complete
}

// manyHandshakes is how many handshakes may be going on before further clients
// have to prove their address first. Unlike nginx, which leaves that to
// quic_retry: each handshake costs memory, and its sender may be forged.
const manyHandshakes = 1000

// start accepts connections.
func (q *quicSocket) start(r *Runtime, b *boundSocket) error {
	if q.transport == nil {
		q.transport = q.newTransport(r, b)
	}
	outer := &tls.Config{GetConfigForClient: chooseForQUIC, SessionTicketsDisabled: true, MinVersion: tls.VersionTLS13}
	var err error
	quietly(func() {
		q.listener, err = q.transport.ListenEarly(outer, &quic.Config{
			GetConfigForClient: func(*quic.ClientInfo) (*quic.Config, error) { return quicConfig(b.quicConf()), nil },
			Versions:           []quic.Version{quic.Version1},
		})
	})
	return err
}

// quicConf is the configuration that counts before a client has said a name.
func (b *boundSocket) quicConf() *Conf { return &b.binding.Load().socket.fallback.fallback.Level.Conf }

func (q *quicSocket) newTransport(r *Runtime, b *boundSocket) *quic.Transport {
	t := &quic.Transport{Conn: q.UDPConn, ConnectionIDLength: connectionIDLength}
	t.TokenGeneratorKey, t.StatelessResetKey = b.quicConf().HTTP3.keys()
	t.VerifySourceAddress = func(net.Addr) bool {
		return b.quicConf().HTTP3.retry || q.handshakes.Load() > manyHandshakes
	}
	t.ConnContext = func(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
		return r.beginQUIC(ctx, b, q, info)
	}
	return t
}

// connectionIDLength is how long identifiers of connections are (NGX_QUIC_SERVER_CID_LEN).
const connectionIDLength = 20

// quietly runs f while quic-go keeps its advice about the sizes of buffers to
// itself: it has no other way than the standard logger.
func quietly(f func()) {
	const name = "QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING"
	if _, set := os.LookupEnv(name); !set {
		_ = os.Setenv(name, "1")
		defer func() { _ = os.Unsetenv(name) }()
	}
	f()
}

// noTimeout stands for no limit, where quic-go would take a default of its own.
const noTimeout = 24 * time.Hour

// quicConfig says how connections are made by a server's configuration.
func quicConfig(conf *Conf) *quic.Config {
	core, h := &conf.Core, &conf.HTTP3
	window := uint64(max(h.bufferSize, 1))
	limit := func(d time.Duration) time.Duration {
		if d <= 0 {
			return noTimeout
		}
		return d
	}
	q := &quic.Config{
		Versions: []quic.Version{quic.Version1},
		// quic-go gives up after twice the time, too.
		HandshakeIdleTimeout:       limit(core.HeaderTimeout),
		MaxIdleTimeout:             limit(core.KeepaliveTimeout),
		InitialStreamReceiveWindow: window, MaxStreamReceiveWindow: window,
		Allow0RTT: conf.SSL.earlyData,
	}
	http3Config(conf).Tune(q)
	q.MaxConnectionReceiveWindow = window * uint64(q.MaxIncomingStreams+q.MaxIncomingUniStreams)
	q.InitialConnectionReceiveWindow = q.MaxConnectionReceiveWindow
	return q
}

// quicClient is the key of a connection's client in its context.
type quicClient struct{}

// beginQUIC makes the client of a connection whose first datagram has come.
func (r *Runtime) beginQUIC(ctx context.Context, b *boundSocket, q *quicSocket, info *quic.ClientInfo) (context.Context, error) {
	if r.closing.Load() {
		return nil, errShuttingDown
	}
	at := b.binding.Load()
	c := &client{rt: r, quic: true, socket: b, table: at.table, endpoint: at.socket.fallback, began: time.Now(), life: new(life)}
	c.life.table.Store(at.table)
	c.id = r.clients.accepted.Add(1)
	c.remote = addrPort(info.RemoteAddr)
	c.peerName = c.remote.Addr().String()
	if !r.admit(c) {
		return nil, errTooManyClients
	}
	r.clients.add(c)
	c.newHandshake(nil)
	q.users.Add(1)
	q.handshakes.Add(1)
	context.AfterFunc(ctx, func() {
		defer q.users.Done()
		if c.secure.complete.CompareAndSwap(false, true) {
			q.handshakes.Add(-1)
			c.secure.failedQUIC(context.Cause(ctx))
			r.clients.remove(c)
		}
	})
	return context.WithValue(ctx, quicClient{}, c), nil
}

var (
	errShuttingDown   = errors.New("shutting down")
	errTooManyClients = errors.New("worker_connections are not enough")
)

// chooseForQUIC sets up the handshake of a connection, once it is known which
// address the client has written to.
func chooseForQUIC(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	c, ok := hello.Context().Value(quicClient{}).(*client)
	if !ok {
		return nil, errNoTLS
	}
	c.local = addrPort(hello.Conn.LocalAddr())
	c.endpoint = c.socket.binding.Load().socket.endpoint(c.local.Addr())
	return c.secure.choose(hello)
}

// acceptQUIC serves connections until the socket accepts no more.
func (b *boundSocket) acceptQUIC(q *quicSocket, l *quic.EarlyListener) {
	for {
		conn, err := l.Accept(context.Background())
		if err != nil {
			return
		}
		if c, ok := conn.Context().Value(quicClient{}).(*client); ok {
			go c.serveQUIC(q, conn)
		}
	}
}

// serveQUIC serves a connection to its end. Requests that came as early data are
// served before the handshake is complete.
func (c *client) serveQUIC(q *quicSocket, conn *quic.Conn) {
	h := c.secure
	if !conn.ConnectionState().Used0RTT {
		select {
		case <-conn.HandshakeComplete():
		case <-conn.Context().Done():
			return
		}
	}
	if !h.complete.CompareAndSwap(false, true) {
		return
	}
	q.handshakes.Add(-1)
	defer c.rt.clients.remove(c)
	h.done(conn.ConnectionState().TLS)
	h.early = func() bool {
		select {
		case <-conn.HandshakeComplete():
			return false
		default:
			return conn.ConnectionState().Used0RTT
		}
	}
	conf := &c.endpoint.fallback.Level.Conf
	if c.sni != nil {
		conf = &c.sni.Level.Conf
	}
	hc := http3.NewConn(conn, http3Config(conf), c.serveHTTP3Stream, func(reason string) {
		c.logf(logInfo, "processing HTTP/3 connection", "%s", reason)
	})
	c.life.bound.Store(true)
	c.life.onEnd(hc.Shutdown, hc.Abort)
	hc.Serve()
}

// failedQUIC logs a handshake that did not succeed.
func (h *handshake) failedQUIC(err error) {
	c := h.client
	var broken *quic.TransportError
	switch {
	case h.rejected:
		c.logf(logInfo, tlsHandshaking, "handshake rejected")
	case errors.As(err, new(*quic.HandshakeTimeoutError)), errors.As(err, new(*quic.IdleTimeoutError)):
		c.logf(logInfo, tlsHandshaking, "client timed out (110: Connection timed out)")
	case errors.As(err, &broken) && broken.Remote && broken.ErrorCode.IsCryptoError():
		c.logf(logInfo, tlsHandshaking, "SSL_do_handshake() failed (%s)", alertText(int(broken.ErrorCode&0xff)))
	case err != nil:
		c.logf(logInfo, tlsHandshaking, "%s", handshakeProblem(err))
	}
}

// listenQUIC opens the socket of an address.
func (b *boundSocket) listenQUIC(s *socket, at netip.AddrPort) (*quicSocket, error) {
	var set error
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		return raw.Control(func(fd uintptr) { set = s.setOptions(int(fd)) })
	}}
	l, err := lc.ListenPacket(context.Background(), s.network, at.String())
	if set != nil {
		if err == nil {
			_ = l.Close()
		}
		return nil, b.notSet(set)
	}
	if err != nil {
		return nil, b.failed(err, s)
	}
	return &quicSocket{UDPConn: l.(*net.UDPConn)}, nil
}

// pause ends accepting; connections that exist go on.
func (q *quicSocket) pause() {
	if q.listener != nil {
		_ = q.listener.Close()
		q.listener = nil
	}
}

// finish ends the socket with its last connection.
func (q *quicSocket) finish() {
	q.pause()
	go func() {
		q.users.Wait()
		if q.transport != nil {
			_ = q.transport.Close()
		}
		_ = q.Close()
	}()
}
