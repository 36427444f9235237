// Package http3 is HTTP/3 on the wire (RFC 9114), the server's side, over the
// connections of quic-go: frames, the streams of a connection, and heads in QPACK
// (RFC 9204). It knows nothing of configuration.
//
// What clients send may use the dynamic table; what is sent does not, as by nginx.
package http3

import (
	"time"

	"github.com/quic-go/quic-go"
)

// Config is what the connections of a server have in common. It must not change
// while connections use it. A time of 0 means no limit.
type Config struct {
	Streams   int // how many streams of a connection may be open at a time
	FieldSize int // bytes of a name or a value
	HeadSize  int // bytes of all names and values of a head
	Fields    int // number of fields but cookies; 0: no bound but HeadSize

	HeadTimeout time.Duration // for a whole head, and for the first
	IdleTimeout time.Duration // without a stream; 0: the first stream is the last
	SendTimeout time.Duration // between two writes
	LingerTime  time.Duration // how long the last answers may take to arrive

	Requests int           // after how many the connection ends
	Age      time.Duration // after what time the next request is the last
}

// Handler answers the request of a stream. When s.Err is set the head was
// refused.
type Handler func(s *Stream)

// Protocol is the name of HTTP/3 in handshakes.
const Protocol = "h3"

// ErrCode is an error code of RFC 9114, section 8.1, or RFC 9204, section 6.
type ErrCode uint64

// The codes.
const (
	NoError ErrCode = iota + 0x100
	GeneralProtocolError
	InternalError
	StreamCreationError
	ClosedCriticalStream
	FrameUnexpected
	FrameError
	ExcessiveLoad
	IDError
	SettingsError
	MissingSettings
	RequestRejected

	DecompressionFailed ErrCode = iota + 0x200 - 12
	EncoderStreamError
	DecoderStreamError
)

// Kinds of streams in one direction.
const (
	streamControl = iota
	streamPush
	streamEncoder
	streamDecoder
)

// Types of frames. Those that HTTP/2 alone has may not come at all.
const (
	frameData       = 0x00
	frameHeaders    = 0x01
	framePriority   = 0x02
	frameCancelPush = 0x03
	frameSettings   = 0x04
	framePush       = 0x05
	framePing       = 0x06
	frameGoAway     = 0x07
	frameWindow     = 0x08
	frameContinued  = 0x09
	frameMaxPush    = 0x0d
)

// Settings that the server sends.
const (
	settingTable   = 0x01
	settingBlocked = 0x07
)

// tableSize is how large clients may make their dynamic table.
const tableSize = 4096

// uniStreams is how many streams of its own a client may open: control, encoder
// and decoder, as with nginx.
const uniStreams = 3

// wireError ends a stream or a connection. Its reason is for the log, in nginx's
// words; "" when there is nothing to say.
type wireError struct {
	code   ErrCode // 0: the request is refused by an answer
	reason string
	status int // of the request, when it is not 400
}

func (e *wireError) Error() string { return e.reason }

func broken(code ErrCode, reason string) error { return &wireError{code: code, reason: reason} }

// Tune sets what quic-go has to know of the protocol: how many streams there may
// be, and that their number counts until they have been answered, not only until
// a client has given them up.
func (c *Config) Tune(q *quic.Config) {
	q.MaxIncomingStreams = int64(max(c.Streams, 1))
	q.MaxIncomingUniStreams = uniStreams
	q.RequireStreamCreditRelease = true
}
