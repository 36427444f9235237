package resolver

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// response is a DNS message taken apart, as far as it is of use here.
type response struct {
	id        uint16
	code      Code
	truncated bool
	name      string // of the question; lower case, without a dot at the end
	kind      uint16 // of the question
	ttl       uint32 // the least of all records
	addrs     []netip.Addr
	srvs      []target
	alias     bool // there was a CNAME
	cname     string
	notes     []string // what was strange about it
}

// target is one SRV record.
type target struct {
	name             string
	port             uint16
	priority, weight uint16
}

const headerSize = 12

// What is wrong with a message, in nginx's words.
var (
	errShort     = errors.New("short DNS response")
	errQuestions = errors.New("invalid number of questions in DNS response")
	errPointer   = errors.New("unexpected compression pointer in DNS response")
	errNoName    = errors.New("zero-length domain name in DNS response")
)

// maxNotes bounds what is said about one message.
const maxNotes = 4

// parseResponse reads a message. Records behind the answers are not looked at.
// A truncated message is read up to its question.
func parseResponse(p []byte, tcp bool) (response, error) {
	r := response{ttl: 1<<31 - 1}
	if len(p) < headerSize {
		return r, errShort
	}
	r.id = binary.BigEndian.Uint16(p)
	flags := binary.BigEndian.Uint16(p[2:])
	r.code, r.truncated = Code(flags&0xf), flags&0x200 != 0
	// an answer to a standard query, the bits that no query sets being clear
	if flags&0xf870 != 0x8000 || r.truncated && tcp {
		over := "UDP"
		if tcp {
			over = "TCP"
		}
		return r, fmt.Errorf("invalid %s DNS response %d fl:%04X", over, r.id, flags)
	}
	if r.code == FormatError || r.code > Refused { // there need not be a question
		return r, nil
	}
	if binary.BigEndian.Uint16(p[4:]) != 1 {
		return r, errQuestions
	}
	at, err := r.question(p)
	if err != nil || r.truncated || r.code != 0 {
		return r, err
	}
	for range binary.BigEndian.Uint16(p[6:]) {
		if at, err = r.record(p, at); err != nil {
			return r, err
		}
	}
	return r, nil
}

// question reads the question. at is where the answers begin.
func (r *response) question(p []byte) (at int, err error) {
	for i := headerSize; i < len(p) && p[i] != 0; i += 1 + int(p[i]) {
		if p[i]&0xc0 != 0 {
			return 0, errPointer
		}
	}
	name, at, err := dns.UnpackDomainName(p, headerSize)
	if err != nil || at+4 > len(p) {
		return 0, errShort
	}
	if name == "." {
		return 0, errNoName
	}
	r.name = bare(name)
	r.kind = binary.BigEndian.Uint16(p[at:])
	if class := binary.BigEndian.Uint16(p[at+2:]); class != dns.ClassINET {
		return 0, fmt.Errorf("unknown query class %d in DNS response", class)
	}
	return at + 4, nil
}

// record reads one answer.
func (r *response) record(p []byte, at int) (int, error) {
	rr, at, err := dns.UnpackRR(p, at)
	if err != nil || rr == nil {
		return 0, errShort
	}
	h := rr.Header()
	if h.Class != dns.ClassINET {
		return 0, fmt.Errorf("unexpected RR class %d in DNS response", h.Class)
	}
	ttl := h.Ttl
	if ttl > 1<<31-1 { // RFC 2181, section 8
		ttl = 0
	}
	r.ttl = min(r.ttl, ttl)
	switch v := rr.(type) {
	case *dns.A:
		return at, r.address(h.Rrtype, "A", v.A.To4())
	case *dns.AAAA:
		return at, r.address(h.Rrtype, "AAAA", v.AAAA)
	case *dns.CNAME:
		r.alias, r.cname = true, bare(v.Target)
	case *dns.SRV:
		if r.kind == dns.TypeSRV {
			r.srvs = append(r.srvs, target{bare(v.Target), v.Port, v.Priority, max(v.Weight, 1)})
			return at, nil
		}
		r.note(h.Rrtype)
	case *dns.DNAME:
	default:
		r.note(h.Rrtype)
	}
	return at, nil
}

func (r *response) note(kind uint16) {
	if len(r.notes) < maxNotes {
		r.notes = append(r.notes, fmt.Sprintf("unexpected RR type %d in DNS response", kind))
	}
}

// address takes the address of an A or AAAA record.
func (r *response) address(kind uint16, what string, ip []byte) error {
	if kind != r.kind {
		if r.kind == dns.TypeSRV {
			r.note(kind)
			return nil
		}
		return fmt.Errorf("unexpected %s record in DNS response", what)
	}
	a, ok := netip.AddrFromSlice(ip)
	if !ok {
		return fmt.Errorf("invalid %s record in DNS response", what)
	}
	r.addrs = append(r.addrs, a)
	return nil
}

// bare gives a name the form of keys.
func bare(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }
