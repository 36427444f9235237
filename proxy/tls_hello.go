package proxy

import (
	"bytes"
	"encoding/binary"
)

// The first message of a TLS client, read without answering it
// (ngx_stream_ssl_preread_module.c).

// clientHello is what the message says, as far as it has come.
type clientHello struct {
	version   [2]byte
	name      []byte
	protocols []byte // of ALPN, separated by commas

	read    int    // bytes of the records in message
	message []byte // what they hold
}

const (
	recordHead      = 5
	recordHandshake = 0x16
	helloMessage    = 1
	helloRandom     = 32
)

// The extensions that are looked into.
const (
	extensionServerName        = 0
	extensionALPN              = 16
	extensionSupportedVersions = 43
)

// take reads p, which is all that the client has sent, from where it stopped the
// last time. OK: it knows everything; Declined: the client does not speak TLS, or
// not well; Again: more is needed. A record counts when all of it has come.
func (h *clientHello) take(p []byte) Code {
	for len(p)-h.read >= recordHead {
		r := p[h.read:]
		if h.read == 0 && r[0]&0x80 != 0 && r[2] == helloMessage && (r[3] == 0 || r[3] == 3) { // that of SSL 2
			h.version = [2]byte{r[3], r[4]}
			return OK
		}
		if r[0] != recordHandshake || r[1] != 3 {
			return Declined
		}
		end := recordHead + int(binary.BigEndian.Uint16(r[3:]))
		if len(r) < end {
			break
		}
		h.message = append(h.message, r[recordHead:end]...)
		h.read += end
		if code := h.parse(); code != Again {
			return code
		}
	}
	return Again
}

// helloReader takes a message apart of which the beginning has come.
type helloReader struct {
	come []byte
	left int  // of the message
	code Code // not OK when something could not be taken
}

// next gives n bytes, nil when they have not come or are not in the message.
func (r *helloReader) next(n int) []byte {
	switch {
	case r.code != OK:
	case n > r.left:
		r.code = Declined
	case n > len(r.come):
		r.code = Again
	default:
		p := r.come[:n:n]
		r.come, r.left = r.come[n:], r.left-n
		return p
	}
	return nil
}

// number reads n bytes as a number.
func (r *helloReader) number(n int) int {
	v := 0
	for _, b := range r.next(n) {
		v = v<<8 | int(b)
	}
	return v
}

// vector reads a length of n bytes and what has that length.
func (r *helloReader) vector(n int) []byte { return r.next(r.number(n)) }

// parse reads the message from its beginning. Unlike nginx, lengths that do not
// agree with those around them are not accepted: other readers could see another
// name.
func (h *clientHello) parse() Code {
	h.version, h.name, h.protocols = [2]byte{}, nil, nil
	r := helloReader{come: h.message, left: 4}
	kind := r.number(1)
	length := r.number(3)
	if r.code != OK {
		return r.code
	}
	if kind != helloMessage {
		return Declined
	}
	r.left = length
	version := r.next(len(h.version))
	copy(h.version[:], version)
	r.next(helloRandom)
	r.vector(1) // the session
	r.vector(2) // ciphers
	r.vector(1) // compressions
	if r.code != OK || r.left == 0 {
		return r.code
	}
	if n := r.number(2); r.code == OK && n != r.left {
		return Declined
	}
	for r.code == OK && r.left > 0 {
		kind = r.number(2)
		n := r.number(2)
		if r.code == OK && kind == extensionSupportedVersions {
			h.version = [2]byte{3, 4} // as nginx takes it, whatever they are
			if n > r.left {           // nginx goes by the length of the list, and behind it anything can be seen
				return OK
			}
		}
		if p := r.next(n); r.code == OK && !h.extension(kind, p) {
			return Declined
		}
	}
	return r.code
}

// extension reads what is in one extension; false when it is malformed.
func (h *clientHello) extension(kind int, p []byte) bool {
	r := helloReader{come: p, left: len(p)}
	switch {
	case kind == extensionServerName && h.name == nil:
		if n := r.number(2); n != r.left || r.number(1) != 0 { // it is the name of a host
			return false
		}
		h.name = r.vector(2)
		return r.code == OK && plainName(h.name)
	case kind == extensionALPN && h.protocols == nil:
		if n := r.number(2); n != r.left || n == 0 {
			return false
		}
		h.protocols = []byte{}
		for r.code == OK && r.left > 0 {
			protocol := r.vector(1)
			if len(protocol) == 0 {
				return false
			}
			if len(h.protocols) > 0 {
				h.protocols = append(h.protocols, ',')
			}
			h.protocols = append(h.protocols, protocol...)
		}
		return r.code == OK
	}
	return true
}

// plainName says whether a name can be that of a host. Unlike nginx, control
// characters and spaces are not let into variables.
func plainName(name []byte) bool {
	return bytes.IndexFunc(name, func(c rune) bool { return c <= ' ' || c == 0x7f }) < 0
}

// protocol names the version as OpenSSL does; "" for an unknown one.
func (h *clientHello) protocol() string {
	switch h.version {
	case [2]byte{0, 2}:
		return "SSLv2"
	case [2]byte{3, 0}:
		return "SSLv3"
	case [2]byte{3, 1}:
		return "TLSv1"
	case [2]byte{3, 2}:
		return "TLSv1.1"
	case [2]byte{3, 3}:
		return "TLSv1.2"
	case [2]byte{3, 4}:
		return "TLSv1.3"
	}
	return ""
}
