// Package http2 is HTTP/2 on the wire (RFC 9113): frames, streams, flow control
// and header blocks. It knows nothing of configuration. Conn is the server's side,
// ClientConn (client.go) the other, for upstreams.
//
// Frames are read where they arrive: the payload of DATA and the fragments of
// header blocks are used piece by piece, so that frames of any size, which
// nginx announces to take, cost no more memory than small ones. Header blocks
// are decoded by hpack; what is sent uses no dynamic table, as by nginx.
package http2

import (
	"fmt"
	"time"
)

// Config is what the connections of a server have in common. It must not change
// while connections use it. A time of 0 means no limit.
type Config struct {
	Streams   int   // how many streams of a connection may be open at a time
	Window    int64 // how much of a body may arrive before it is read
	FieldSize int   // bytes of a name or a value
	HeadSize  int   // bytes of all names and values of a head
	Fields    int   // number of fields but cookies; 0: no bound but HeadSize

	HeadTimeout   time.Duration // for a whole head, and for the first
	IdleTimeout   time.Duration // without a stream; 0: the first stream is the last
	SendTimeout   time.Duration // between two writes
	LingerTime    time.Duration // how long input is discarded at the end; 0: not at all
	LingerTimeout time.Duration // how long to wait for more of it

	Requests int           // after how many the connection ends
	Age      time.Duration // after what time the next request is the last

	Workers *Workers // whose goroutines run the handlers; shared by all connections
}

// Handler answers the request of a stream. When s.Err is set the head was
// refused.
type Handler func(s *Stream)

// ErrCode is an error code of RFC 9113, section 7.
type ErrCode uint32

// The codes.
const (
	NoError ErrCode = iota
	ProtocolError
	InternalError
	FlowControlError
	SettingsTimeout
	StreamClosed
	FrameSizeError
	RefusedStream
	Cancel
	CompressionError
	ConnectError
	EnhanceYourCalm
)

// Frame types.
const (
	frameData = iota
	frameHeaders
	framePriority
	frameReset
	frameSettings
	framePush
	framePing
	frameGoAway
	frameWindow
	frameContinuation
)

// Flags of frames.
const (
	flagAck        = 0x1
	flagEndStream  = 0x1
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20
)

// Settings.
const (
	settingTableSize = iota + 1
	settingPush
	settingStreams
	settingWindow
	settingFrameSize
)

const (
	headerSize       = 9
	maxWindow        = 1<<31 - 1
	defaultWindow    = 1<<16 - 1
	defaultFrameSize = 1 << 14
	maxFrameSize     = 1<<24 - 1
	tableSize        = 4096
)

// Preface is what a client sends first.
const Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// connError ends a connection. Its reason is for the log, in nginx's words; ""
// when there is nothing to say.
type connError struct {
	code   ErrCode
	reason string
}

func (e *connError) Error() string { return e.reason }

func broken(code ErrCode, format string, args ...any) error {
	return &connError{code, fmt.Sprintf(format, args...)}
}
