package resolver

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"github.com/miekg/dns"
)

const (
	// resendTime is how long a server may take before the next one is asked.
	resendTime = 5 * time.Second
	tcpTime    = 5 * time.Second
	// packetSize is the largest answer that is taken by UDP. Queries do not ask
	// for more than the 512 bytes of RFC 1035.
	packetSize = 4096
)

// lookup is one question on its way: to one server after the other until all
// its parts are answered.
type lookup struct {
	r         *Resolver
	key       key
	questions []question
	server    int              // whom is being asked
	asked     int              // how many servers since the last pause
	sockets   map[int]net.Conn // by server
	packets   chan packet
	done      chan struct{}
	last      *response // the answer that came last
	code      Code
	addrs     [2][]netip.Addr // by kind: IPv4, IPv6
	ttl       uint32
}

// question is one query: all of its wire form, and how far it got.
type question struct {
	id       uint16
	kind     uint16
	wire     []byte
	answered bool
	tcp      bool // its answer was too large for UDP
}

// packet is an answer as it came, or the end of a socket.
type packet struct {
	data   []byte
	server int
	tcp    bool
	err    error
}

// newLookup makes the queries. Names that cannot be asked for do not exist.
func (r *Resolver) newLookup(k key) (*lookup, error) {
	if len(r.conf.Servers) == 0 {
		return nil, ServerFailure
	}
	// a backslash would begin an escape of the master file format
	if k.name == "" || strings.ContainsRune(k.name, '\\') {
		return nil, NotFound
	}
	l := &lookup{
		r: r, key: k, sockets: map[int]net.Conn{}, packets: make(chan packet, 8), done: make(chan struct{}),
		server: int(r.server.Add(1)-1) % len(r.conf.Servers), ttl: 1<<31 - 1,
	}
	var kinds []uint16
	switch {
	case k.service:
		kinds = append(kinds, dns.TypeSRV)
	default:
		if r.conf.IPv4 {
			kinds = append(kinds, dns.TypeA)
		}
		if r.conf.IPv6 {
			kinds = append(kinds, dns.TypeAAAA)
		}
	}
	for _, kind := range kinds {
		var m dns.Msg
		m.SetQuestion(k.name+".", kind)
		wire, err := m.Pack()
		if err != nil {
			return nil, NotFound
		}
		l.questions = append(l.questions, question{id: m.Id, kind: kind, wire: wire})
	}
	return l, nil
}

// run asks until there is an answer, or nobody wants it any more.
func (l *lookup) run(ctx context.Context) result {
	defer l.close()
	l.askOrNext(ctx)
	timer := time.NewTimer(resendTime)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return result{code: ServerFailure}
		case <-timer.C:
			l.asked = 0
			l.next()
			l.askOrNext(ctx)
			timer.Reset(resendTime)
		case p := <-l.packets:
			if p.err != nil {
				if l.lost(ctx, p) {
					timer.Reset(resendTime)
				}
				continue
			}
			if l.take(ctx, p) {
				return l.result()
			}
		}
	}
}

func (l *lookup) close() {
	close(l.done)
	for _, c := range l.sockets {
		_ = c.Close()
	}
}

func (l *lookup) next() { l.server = (l.server + 1) % len(l.r.conf.Servers) }

// askOrNext asks the current server, or the next when that fails at once.
func (l *lookup) askOrNext(ctx context.Context) {
	if l.ask(ctx) != nil && len(l.r.conf.Servers) > 1 {
		l.next()
		_ = l.ask(ctx)
	}
}

// lost notes that a server cannot be reached. Unlike nginx, the next one is
// asked at once, unless all have been.
func (l *lookup) lost(ctx context.Context, p packet) bool {
	l.log(p.server, "%s", p.err)
	if c := l.sockets[p.server]; c != nil {
		_ = c.Close()
		delete(l.sockets, p.server)
	}
	return p.server == l.server && l.refused(ctx)
}

// refused turns to the next server, if there is one that has not been asked.
func (l *lookup) refused(ctx context.Context) bool {
	if l.asked >= len(l.r.conf.Servers) {
		return false
	}
	l.next()
	l.askOrNext(ctx)
	return true
}

// log logs something about a server.
func (l *lookup) log(server int, format string, a ...any) {
	l.r.conf.Log("%s while resolving, resolver: %s", fmt.Sprintf(format, a...), l.r.conf.Servers[server])
}

// ask sends what is not answered yet to the current server.
func (l *lookup) ask(ctx context.Context) error {
	l.asked++
	for i := range l.questions {
		q := &l.questions[i]
		switch {
		case q.answered:
		case q.tcp:
			go l.askTCP(ctx, l.server, q.wire)
		default:
			if err := l.askUDP(l.server, q.wire); err != nil {
				l.log(l.server, "%s", err)
				return err
			}
		}
	}
	return nil
}

// askUDP sends a query over the socket of this look-up to a server. The socket
// is connected: answers of others do not reach it.
func (l *lookup) askUDP(server int, query []byte) error {
	c := l.sockets[server]
	if c == nil {
		var err error
		if c, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(l.r.conf.Servers[server])); err != nil {
			return described("connect()", err)
		}
		l.sockets[server] = c
		go l.read(server, c)
	}
	if _, err := c.Write(query); err != nil {
		_ = c.Close()
		delete(l.sockets, server)
		return described("send()", err)
	}
	return nil
}

// read passes on what a socket receives until it is closed.
func (l *lookup) read(server int, c net.Conn) {
	var buf [packetSize]byte
	for {
		n, err := c.Read(buf[:])
		if errors.Is(err, net.ErrClosed) {
			return
		}
		p := packet{server: server, data: append([]byte(nil), buf[:n]...)}
		if err != nil {
			p.err = described("recv()", err)
		}
		if !l.pass(p) || err != nil {
			return
		}
	}
}

func (l *lookup) pass(p packet) bool {
	select {
	case l.packets <- p:
		return true
	case <-l.done:
		return false
	}
}

// askTCP asks by TCP what did not fit into a packet.
func (l *lookup) askTCP(ctx context.Context, server int, query []byte) {
	data, err := l.exchangeTCP(ctx, server, query)
	if ctx.Err() != nil {
		return
	}
	l.pass(packet{server: server, data: data, tcp: true, err: err})
}

func (l *lookup) exchangeTCP(ctx context.Context, server int, query []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, tcpTime)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", l.r.conf.Servers[server].String())
	if err != nil {
		return nil, described("connect()", err)
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	framed := binary.BigEndian.AppendUint16(nil, uint16(len(query)))
	if _, err := c.Write(append(framed, query...)); err != nil {
		return nil, described("send()", err)
	}
	var size [2]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return nil, described("recv()", err)
	}
	data := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(c, data); err != nil {
		return nil, described("recv()", err)
	}
	return data, nil
}

// described words a failed system call as nginx does.
func described(call string, err error) error {
	var e syscall.Errno
	if !errors.As(err, &e) {
		return fmt.Errorf("%s failed: %w", call, err)
	}
	text := e.Error()
	return fmt.Errorf("%s failed (%d: %s)", call, int(e), strings.ToUpper(text[:1])+text[1:])
}

// take looks at an answer. It says whether all questions are answered.
func (l *lookup) take(ctx context.Context, p packet) bool {
	res, err := parseResponse(p.data, p.tcp)
	if err != nil {
		l.log(p.server, "%s", err)
		return false
	}
	for _, note := range res.notes {
		l.log(p.server, "%s", note)
	}
	if res.code == FormatError || res.code > Refused {
		l.log(p.server, "DNS error (%s), query id:%d", res.code, res.id)
		if p.server == l.server {
			l.refused(ctx)
		}
		return false
	}
	q := l.match(&res)
	switch {
	case q == nil:
		l.log(p.server, "unexpected DNS response for %s", res.name)
		return false
	case res.id != q.id:
		l.log(p.server, "wrong ident %d in DNS response for %s, expect %d", res.id, res.name, q.id)
		return false
	case res.truncated:
		if !q.tcp {
			q.tcp = true
			go l.askTCP(ctx, p.server, q.wire)
		}
		return false
	}
	q.answered = true
	l.last = &res
	if res.code != 0 {
		l.code = res.code
	}
	l.ttl = min(l.ttl, res.ttl)
	switch res.kind {
	case dns.TypeA:
		l.addrs[0] = res.addrs
	case dns.TypeAAAA:
		l.addrs[1] = res.addrs
	}
	for i := range l.questions {
		if !l.questions[i].answered {
			return false
		}
	}
	return true
}

// match finds the open question that an answer is about.
func (l *lookup) match(res *response) *question {
	if res.name != l.key.name {
		return nil
	}
	for i := range l.questions {
		if q := &l.questions[i]; q.kind == res.kind && !q.answered {
			return q
		}
	}
	return nil
}

// result sums the answers up. An error in one of them counts for all; without
// an address the answer that came last says how to go on
// (ngx_resolver_process_a).
func (l *lookup) result() result {
	res := result{code: l.code, valid: time.Now().Unix() + int64(l.ttl)}
	if l.r.conf.Valid > 0 {
		res.valid = time.Now().Unix() + int64(l.r.conf.Valid/time.Second)
	}
	if res.code != 0 {
		return res
	}
	res.addrs, res.four = append(l.addrs[0], l.addrs[1]...), len(l.addrs[0])
	res.srvs = l.last.srvs
	if len(res.addrs) > 0 || len(res.srvs) > 0 {
		return res
	}
	if !l.last.alias {
		return result{code: NotFound}
	}
	if res.cname = l.last.cname; res.cname == "" { // the root has no address
		return result{code: NotFound}
	}
	return res
}
