package http3

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/quicvarint"

	"proxyctl/proxy/head"
)

// Conn is the server's side of a connection. Every stream has a goroutine from its
// beginning to the end of its answer, and so do the streams on which the client
// says something about the connection.
type Conn struct {
	cfg     *Config
	handler Handler
	log     func(reason string)
	quic    *quic.Conn
	began   time.Time
	table   table
	busy    sync.WaitGroup

	total, payload atomic.Int64 // bytes of both directions, and those of messages

	mu       sync.Mutex
	control  *quic.SendStream
	decoder  *quic.SendStream
	known    [streamDecoder + 1]bool // kinds of streams that the client has opened
	open     int                     // requests
	next     int                     // identifier of the request after the latest
	leaving  bool                    // GOAWAY was sent
	idle     *time.Timer
	farewell bool // the connection waits for its last answers to arrive
}

// NewConn makes the server's side of q. log is given the reasons for which a
// connection ends or refuses something; it is called from several goroutines.
func NewConn(q *quic.Conn, cfg *Config, h Handler, log func(reason string)) *Conn {
	c := &Conn{cfg: cfg, handler: h, log: log, quic: q, began: time.Now()}
	c.table.fieldSize, c.table.waiters = cfg.FieldSize, max(cfg.Streams, 1)
	return c
}

// Serve serves the connection to its end.
func (c *Conn) Serve() {
	if c.greet() {
		c.wait(c.cfg.HeadTimeout)
		c.busy.Go(c.acceptUni)
		c.accept()
	}
	c.busy.Wait()
	c.mu.Lock()
	if c.idle != nil {
		c.idle.Stop()
	}
	c.mu.Unlock()
}

// greet opens the streams of the server and sends the settings.
func (c *Conn) greet() bool {
	settings := quicvarint.Append(quicvarint.Append(nil, settingTable), tableSize)
	settings = quicvarint.Append(quicvarint.Append(settings, settingBlocked), uint64(max(c.cfg.Streams, 0)))
	c.mu.Lock()
	defer c.mu.Unlock()
	var err error
	if c.control, err = c.quic.OpenUniStream(); err == nil {
		c.decoder, err = c.quic.OpenUniStream()
	}
	if err != nil {
		c.log("failed to create server stream")
		c.close(StreamCreationError, "failed to create server stream")
		return false
	}
	c.send(c.control, append(quicvarint.Append([]byte{streamControl, frameSettings}, uint64(len(settings))), settings...))
	c.send(c.decoder, []byte{streamDecoder})
	return true
}

// send sends a little on one of the server's own streams, without waiting: the
// client has to take it. The caller holds c.mu.
func (c *Conn) send(s *quic.SendStream, b []byte) {
	if s == nil {
		return
	}
	c.total.Add(int64(len(b)))
	if err := s.TryWriteAll(b); errors.Is(err, quic.ErrWouldBlock) {
		c.close(ExcessiveLoad, "failed to send")
	}
}

// close ends the connection; it does not wait for that.
func (c *Conn) close(code ErrCode, reason string) {
	go func() { _ = c.quic.CloseWithError(quic.ApplicationErrorCode(code), reason) }()
}

// fail ends the connection for a mistake of the client's.
func (c *Conn) fail(err error, reason string) {
	bad := &wireError{code: GeneralProtocolError}
	errors.As(err, &bad)
	if bad.reason != "" {
		c.log(bad.reason)
	}
	c.close(bad.code, reason)
}

// accept takes requests until the connection ends.
func (c *Conn) accept() {
	for {
		q, err := c.quic.AcceptStream(c.quic.Context())
		if err != nil {
			return
		}
		if !c.begin(int(q.StreamID())) {
			q.CancelRead(quic.StreamErrorCode(RequestRejected))
			q.CancelWrite(quic.StreamErrorCode(RequestRejected))
			q.ReleaseStreamCredit()
			continue
		}
		s := newStream(c, q)
		c.busy.Go(func() {
			s.serve()
			c.ended()
		})
	}
}

// begin counts a request, and says whether it is served.
func (c *Conn) begin(id int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := id / 4
	if n >= 2*max(c.cfg.Requests, 1) {
		c.close(ExcessiveLoad, "too many requests per connection")
		return false
	}
	if c.leaving {
		return false
	}
	c.next = id + 4
	c.open++
	if c.idle != nil {
		c.idle.Stop()
	}
	if n+1 >= c.cfg.Requests || c.cfg.IdleTimeout <= 0 || c.cfg.Age > 0 && time.Since(c.began) > c.cfg.Age {
		c.goAway()
	}
	return true
}

// ended is the end of a request.
func (c *Conn) ended() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open--
	switch {
	case c.open > 0:
	case c.leaving:
		c.depart()
	default:
		c.wait(c.cfg.IdleTimeout)
	}
}

// wait ends the connection unless a request begins in time.
func (c *Conn) wait(d time.Duration) {
	if d <= 0 {
		return
	}
	c.idle = time.AfterFunc(d, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.open == 0 {
			c.close(NoError, "keepalive timeout")
		}
	})
}

// goAway tells the client that no further requests are served; the caller holds
// c.mu.
func (c *Conn) goAway() {
	if c.leaving {
		return
	}
	c.leaving = true
	c.send(c.control, quicvarint.Append(quicvarint.Append([]byte{frameGoAway}, uint64(quicvarint.Len(uint64(c.next)))), uint64(c.next)))
}

// Shutdown ends the connection gracefully: requests that have begun are answered,
// further ones are not taken. It does not wait. Safe from any goroutine.
func (c *Conn) Shutdown() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.goAway()
	if c.open == 0 {
		c.depart()
	}
}

// Abort ends the connection at once, without waiting. Safe from any goroutine.
func (c *Conn) Abort() { c.close(NoError, "connection shutdown") }

// leastQuiet is how long nothing must have come or gone before what was sent last
// counts as delivered.
const leastQuiet = 100 * time.Millisecond

// depart closes the connection when what was sent last should have arrived: closing
// it drops what has been lost on its way. The caller holds c.mu.
func (c *Conn) depart() {
	if c.farewell {
		return
	}
	c.farewell = true
	go func() {
		until := time.Now().Add(c.cfg.LingerTime)
		for before := (quic.ConnectionStats{}); ; {
			now := c.quic.ConnectionStats()
			if now.PacketsSent == before.PacketsSent && now.PacketsReceived == before.PacketsReceived || time.Now().After(until) {
				break
			}
			before = now
			select {
			case <-c.quic.Context().Done():
				return
			case <-time.After(leastQuiet + 3*now.SmoothedRTT):
			}
		}
		_ = c.quic.CloseWithError(quic.ApplicationErrorCode(NoError), "connection shutdown")
	}()
}

// sentBytes, note and worth count what has gone and come, and what of it was
// messages.
func (c *Conn) sentBytes(n int64) {
	c.total.Add(n)
	c.payload.Add(n)
}

func (c *Conn) note(n int64)  { c.total.Add(n) }
func (c *Conn) worth(n int64) { c.payload.Add(n) }

// flooded ends a connection that carries much and says little.
func (c *Conn) flooded() bool {
	if c.total.Load()/8 <= c.payload.Load()+1<<20 {
		return false
	}
	c.log("http3 flood detected")
	c.close(NoError, "HTTP/3 flood detected")
	return true
}

// acknowledge tells the client that a section that needed so many entries has been
// decoded.
func (c *Conn) acknowledge(id, required int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.table.learned(required)
	c.send(c.decoder, head.AppendInt(nil, 0x80, 7, id))
}

// cancel tells the client that sections of a stream may not have been decoded.
func (c *Conn) cancel(id int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.send(c.decoder, head.AppendInt(nil, 0x40, 6, id))
}

// learn tells the client which entries have arrived.
func (c *Conn) learn() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := c.table.learned(0); n > 0 {
		c.send(c.decoder, head.AppendInt(nil, 0, 6, n))
	}
}

// acceptUni takes the streams of the client's own until the connection ends.
func (c *Conn) acceptUni() {
	for {
		q, err := c.quic.AcceptUniStream(context.Background())
		if err != nil {
			return
		}
		c.busy.Go(func() {
			if err := c.readUni(q); err != nil {
				c.fail(err, "stream error")
			}
		})
	}
}

// readUni reads one of them to its end, which none of the known ones may have.
func (c *Conn) readUni(q *quic.ReceiveStream) error {
	in := &reader{src: q}
	defer in.release()
	kind, err := in.varint()
	if err != nil {
		return nil //nolint:nilerr // nothing was said
	}
	if err := c.register(kind); err != nil {
		return err
	}
	switch kind {
	case streamControl:
		err = c.readControl(in)
	case streamEncoder:
		err = c.readEncoder(in)
	case streamDecoder:
		if len(in.held()) == 0 {
			err = in.fill()
		}
		if err == nil {
			err = broken(DecoderStreamError, "client acknowledged what was not sent")
		}
	default: // of an extension
		q.CancelRead(quic.StreamErrorCode(StreamCreationError))
		return nil
	}
	var bad *wireError
	if errors.As(err, &bad) {
		return err
	}
	if c.quic.Context().Err() != nil {
		return nil
	}
	return broken(ClosedCriticalStream, "client closed a critical stream")
}

// register notes that a stream has been opened.
func (c *Conn) register(kind uint64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := &c.known
	switch {
	case kind == streamPush, kind > streamDecoder:
		if !k[streamControl] || !k[streamEncoder] || !k[streamDecoder] {
			return broken(StreamCreationError, "missing mandatory stream")
		}
	case k[kind]:
		return broken(StreamCreationError, "stream already created")
	default:
		k[kind] = true
	}
	return nil
}

// readControl reads the client's control stream. Nothing it can say changes what
// is sent.
func (c *Conn) readControl(in *reader) error {
	for first := true; ; first = false {
		kind, size, err := in.frame()
		switch {
		case err != nil:
			return err
		case first && kind != frameSettings:
			return broken(MissingSettings, "client sent no settings")
		case kind == frameCancelPush:
			return broken(IDError, "client cancelled a push that was not promised")
		case kind == frameData, kind == frameHeaders, kind == framePush, !first && kind == frameSettings,
			kind == framePriority, kind == framePing, kind == frameWindow, kind == frameContinued:
			return broken(FrameUnexpected, "client sent unexpected frame on its control stream")
		case kind == frameSettings:
			err = readSettings(in, size)
		default:
			err = in.skip(size)
		}
		if err != nil {
			return err
		}
		c.note(in.total)
		in.total = 0
		if c.flooded() {
			return nil
		}
	}
}

// maxSettings is how large the frame of settings may be. Unlike nginx, which takes
// any.
const maxSettings = 4 << 10

// readSettings checks the form of settings: each identifier may come once, and not
// those that HTTP/2 alone has (RFC 9114, section 7.2.4.1).
func readSettings(in *reader, size uint64) error {
	if size > maxSettings {
		return broken(ExcessiveLoad, "client sent too many settings")
	}
	b, err := in.payload(int(size))
	if err != nil {
		return err
	}
	seen := map[uint64]bool{}
	for len(b) > 0 {
		id, n, err := quicvarint.Parse(b)
		if err != nil || seen[id] || id >= 2 && id <= 5 {
			return errSettings
		}
		seen[id] = true
		_, m, err := quicvarint.Parse(b[n:])
		if err != nil {
			return errSettings
		}
		b = b[n+m:]
	}
	return nil
}

var errSettings = broken(SettingsError, "client sent invalid settings")

// readEncoder reads the client's encoder stream.
func (c *Conn) readEncoder(in *reader) error {
	for {
		if len(in.held()) == 0 {
			if err := in.fill(); err != nil {
				return err
			}
		}
		b := in.held()
		in.start = in.end
		c.note(int64(len(b)))
		n, err := c.table.instruct(b)
		if err != nil {
			return err
		}
		if n > 0 {
			c.learn()
		}
		if c.flooded() {
			return nil
		}
	}
}
