package http2

import "encoding/binary"

// frame is the frame that is being read.
type frame struct {
	preface     string // what is missing of the preface
	open        bool
	begun       bool // what stands before the content has been read
	kind, flags uint8
	id          uint32
	size        int // of the payload
	rest        int // of its content, not used yet
	padding     int
	window      int64 // of SETTINGS: -1 if there was none
	resize      bool
}

func (f *frame) has(flag uint8) bool { return f.flags&flag != 0 }

// consume uses what is in the buffer.
func (c *Conn) consume() error {
	if len(c.frame.preface) > 0 {
		if err := c.checkPreface(); err != nil || len(c.frame.preface) > 0 {
			return err
		}
	}
	for {
		f := &c.frame
		if !f.open {
			if c.end-c.start < headerSize {
				break
			}
			if err := c.open(); err != nil {
				return err
			}
		}
		done, err := c.content()
		if err != nil {
			return err
		}
		if !done {
			break
		}
		f.open = false
	}
	if c.start > 0 { // less than the smallest content is left
		c.end = copy(*c.in, (*c.in)[c.start:c.end])
		c.start = 0
	}
	return nil
}

func (c *Conn) checkPreface() error {
	f := &c.frame
	b := (*c.in)[c.start:c.end]
	n := min(len(b), len(f.preface))
	if string(b[:n]) != f.preface[:n] {
		return broken(ProtocolError, "invalid connection preface")
	}
	f.preface = f.preface[n:]
	c.start += n
	return nil
}

// open reads the head of a frame.
func (c *Conn) open() error {
	b := (*c.in)[c.start:]
	c.start += headerSize
	size := int(b[0])<<16 | int(b[1])<<8 | int(b[2])
	c.frame = frame{
		open: true, kind: b[3], flags: b[4], id: binary.BigEndian.Uint32(b[5:]) & maxWindow,
		size: size, rest: size, window: -1,
	}
	if c.block.open && c.frame.kind != frameContinuation {
		return broken(ProtocolError, "client sent inappropriate frame while CONTINUATION was expected")
	}
	return c.checkFrame()
}

// exactly is the size of the payloads that have but one.
var exactly = [...]int{framePriority: 5, frameReset: 4, framePing: 8, frameWindow: 4}

var frameNames = [...]string{
	"DATA", "HEADERS", "PRIORITY", "RST_STREAM", "SETTINGS", "PUSH_PROMISE", "PING", "GOAWAY", "WINDOW_UPDATE", "CONTINUATION",
}

// checkFrame looks at the head of a frame: its size first, as nginx does.
func (c *Conn) checkFrame() error {
	f := &c.frame
	if int(f.kind) < len(exactly) && exactly[f.kind] > 0 && f.size != exactly[f.kind] {
		return broken(FrameSizeError, "client sent %s frame with incorrect length %d", frameNames[f.kind], f.size)
	}
	ofStream := false
	switch f.kind {
	case frameData, frameHeaders, framePriority, frameReset:
		ofStream = true
	case frameSettings:
		if f.flags == flagAck && f.size != 0 {
			return broken(FrameSizeError, "client sent SETTINGS frame with the ACK flag and nonzero length")
		}
		if f.size%6 != 0 {
			return broken(FrameSizeError, "client sent SETTINGS frame with incorrect length %d", f.size)
		}
	case framePing:
	case frameGoAway:
		if f.size < 8 {
			return broken(FrameSizeError, "client sent GOAWAY frame with incorrect length %d", f.size)
		}
	case framePush:
		return broken(ProtocolError, "client sent PUSH_PROMISE frame")
	case frameContinuation:
		return c.checkContinuation()
	default: // those of streams and the connection alike, and unknown ones
		return nil
	}
	if ofStream != (f.id != 0) {
		return broken(ProtocolError, "client sent %s frame with incorrect identifier", frameNames[f.kind])
	}
	return nil
}

// content uses what there is of the content. False: more must come.
func (c *Conn) content() (bool, error) {
	f := &c.frame
	switch f.kind {
	case frameData:
		return c.data()
	case frameHeaders, frameContinuation:
		return c.fragment()
	case frameSettings:
		return c.settings()
	case framePriority, frameReset, framePing, frameWindow:
		if c.end-c.start < f.size {
			return false, nil
		}
		b := (*c.in)[c.start : c.start+f.size]
		c.start += f.size
		return true, c.control(b)
	}
	return c.skip(), nil
}

// skip passes over the rest of the payload.
func (c *Conn) skip() bool {
	n := min(c.end-c.start, c.frame.rest)
	c.start += n
	c.frame.rest -= n
	return c.frame.rest == 0
}

// control takes a frame of fixed size.
func (c *Conn) control(b []byte) error {
	f := &c.frame
	switch f.kind {
	case framePriority:
		if c.priorities--; c.priorities == 0 {
			return broken(EnhanceYourCalm, "client sent too many PRIORITY frames")
		}
		return c.checkDependency(b)
	case framePing:
		if !f.has(flagAck) {
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.answer(framePing, flagAck, 0, b)
		}
	case frameWindow:
		return c.windowUpdate(int64(binary.BigEndian.Uint32(b) & maxWindow))
	case frameReset:
		if c.idle(f.id) {
			return broken(ProtocolError, "client sent RST_STREAM frame with incorrect identifier")
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if s := c.streams[f.id]; s != nil {
			s.inClosed = true
			s.die()
		}
	}
	return nil
}

// checkDependency refuses a stream that depends on itself. Priorities have no
// other effect: RFC 9113 has put them away.
func (c *Conn) checkDependency(b []byte) error {
	if binary.BigEndian.Uint32(b)&maxWindow == c.frame.id {
		return broken(ProtocolError, "client sent %s frame for stream %d with incorrect dependency", frameNames[c.frame.kind], c.frame.id)
	}
	return nil
}

// idle says whether a stream has never been used. Unlike nginx, which ignores
// them, frames for such streams end the connection (RFC 9113, section 5.1).
func (c *Conn) idle(id uint32) bool { return id > c.seen || id%2 == 0 }

// windowUpdate takes room that the client grants.
func (c *Conn) windowUpdate(n int64) error {
	id := c.frame.id
	if n == 0 {
		return broken(ProtocolError, "client sent WINDOW_UPDATE frame with incorrect window increment 0")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if id == 0 {
		if n > maxWindow-c.sendWindow {
			return broken(FlowControlError, "client violated connection flow control: "+
				"received WINDOW_UPDATE frame with window increment %d not allowed for window %d", n, c.sendWindow)
		}
		c.sendWindow += n
		c.signalQueue()
		return nil
	}
	if c.idle(id) {
		return broken(ProtocolError, "client sent WINDOW_UPDATE frame with incorrect identifier")
	}
	if s := c.streams[id]; s != nil {
		return s.grow(n)
	}
	return nil
}

// settings takes the client's settings one by one; their effect on streams and
// the acknowledgement come with the last.
func (c *Conn) settings() (bool, error) {
	f := &c.frame
	if f.has(flagAck) && f.size == 0 {
		c.mu.Lock()
		c.acked = true
		c.mu.Unlock()
		return true, nil
	}
	for ; f.rest > 0; f.rest -= 6 {
		if c.end-c.start < 6 {
			return false, nil
		}
		b := (*c.in)[c.start:]
		c.start += 6
		if err := c.setting(binary.BigEndian.Uint16(b), binary.BigEndian.Uint32(b[2:])); err != nil {
			return false, err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.answer(frameSettings, flagAck, 0, nil); err != nil {
		return false, err
	}
	c.resize = c.resize || f.resize
	if f.window < 0 {
		return true, nil
	}
	delta := f.window - c.initWindow
	c.initWindow = f.window
	for _, s := range c.streams {
		if err := s.grow(delta); err != nil {
			return false, err
		}
	}
	return true, nil
}

func (c *Conn) setting(id uint16, value uint32) error {
	wrong := func(code ErrCode, name string) error {
		return broken(code, "client sent SETTINGS frame with incorrect %s value %d", name, value)
	}
	switch id {
	case settingWindow:
		if value > maxWindow {
			return wrong(FlowControlError, "INITIAL_WINDOW_SIZE")
		}
		c.frame.window = int64(value)
	case settingFrameSize:
		if value < defaultFrameSize || value > maxFrameSize {
			return wrong(ProtocolError, "MAX_FRAME_SIZE")
		}
		c.mu.Lock()
		c.peerFrame = int(value)
		c.mu.Unlock()
	case settingPush:
		if value > 1 {
			return wrong(ProtocolError, "ENABLE_PUSH")
		}
	case settingTableSize:
		c.frame.resize = true
	}
	return nil
}

// data takes a piece of a body.
func (c *Conn) data() (bool, error) {
	f := &c.frame
	if !f.begun {
		if f.has(flagPadded) {
			if f.size == 0 {
				return false, broken(FrameSizeError, "client sent padded DATA frame with incorrect length: 0")
			}
			if c.end == c.start {
				return false, nil
			}
			f.padding = int((*c.in)[c.start])
			c.start++
			if f.padding >= f.size {
				return false, broken(ProtocolError, "client sent padded DATA frame with incorrect length: %d, padding: %d", f.size, f.padding)
			}
			f.rest -= 1 + f.padding
		}
		f.begun = true
		if err := c.beginData(); err != nil {
			return false, err
		}
	}
	if n := min(c.end-c.start, f.rest); n > 0 || f.rest == 0 {
		f.rest -= n
		c.body((*c.in)[c.start:c.start+n], f.rest == 0 && f.has(flagEndStream))
		c.start += n
	}
	if f.rest > 0 {
		return false, nil
	}
	return c.pad()
}

// pad passes over the padding behind the content.
func (c *Conn) pad() (bool, error) {
	f := &c.frame
	f.kind, f.rest, f.padding = 0xff, f.padding, 0
	return c.skip(), nil
}

// beginData counts the whole frame against both windows.
func (c *Conn) beginData() error {
	f := &c.frame
	size := int64(f.size)
	c.mu.Lock()
	defer c.mu.Unlock()
	if size > c.recvWindow {
		return broken(FlowControlError, "client violated connection flow control: received DATA frame length %d, available window %d", size, c.recvWindow)
	}
	if c.idle(f.id) {
		return broken(ProtocolError, "client sent DATA frame with incorrect identifier")
	}
	c.recvWindow -= size
	if c.recvWindow < maxWindow/4 {
		if err := c.grant(0, maxWindow-c.recvWindow); err != nil {
			return err
		}
		c.recvWindow = maxWindow
	}
	if s := c.streams[f.id]; s != nil && !s.dead {
		s.count(size)
	}
	return nil
}

// body hands a piece of a body to its stream.
func (c *Conn) body(p []byte, last bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.streams[c.frame.id]
	if s == nil {
		return
	}
	s.arrive(p, last)
	for len(s.body)-s.bodyAt > maxHeld && !s.discard && !s.dead && !c.dead {
		c.filled.Wait() // its handler stores the body, and nothing keeps it from that
	}
}
