package proxy

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"strings"
	"sync"
	"time"
)

// TLS sessions: what lets a client come back without a full handshake.
//
// nginx keeps sessions under an id, or gives them to the client encrypted (a
// ticket). Go's server knows tickets only, but leaves their making to us: without
// ssl_session_tickets a ticket is the id of a session that is kept here. That
// works for every client that knows tickets, with TLS 1.2 and 1.3.

// sessionCache is ssl_session_cache.
type sessionCache struct {
	kind    cacheKind
	zone    string // of shared:NAME:SIZE; "" for none
	size    int64
	builtin int // how many sessions
}

type cacheKind uint8

const (
	cacheNone cacheKind = iota // the default
	cacheOff
	cacheOn // builtin, shared or both
)

// defaultBuiltin is how many sessions OpenSSL keeps by itself.
const defaultBuiltin = 20 << 10

// sessionSize is what one session takes of a zone: nginx says that one megabyte
// holds about 4000.
const sessionSize = 256

// sessionZones are the zones of a runtime, by name: they outlive generations.
type sessionZones struct {
	mu    sync.Mutex
	zones map[string]*sessionZone
}

// zoneName is under which name the sessions of a cache are kept. Without
// shared:NAME they belong to the server; keys of tickets are shared by all that
// name no zone.
func (c *sessionCache) zoneName(site string) string {
	switch {
	case c.zone != "":
		return "shared:" + c.zone
	case c.kind == cacheOn:
		return "builtin:" + site
	}
	return ""
}

// limit is how much memory sessions may take.
func (c *sessionCache) limit() int64 {
	switch {
	case c.zone != "":
		return c.size
	case c.kind == cacheOn:
		return sessionSize * int64(min(max(c.builtin, 1), defaultBuiltin))
	}
	return 0
}

// sessionZone finds or makes the zone of a server.
func (r *Runtime) sessionZone(t *tlsServer) *sessionZone {
	if z := t.zone.Load(); z != nil {
		return z
	}
	z := r.sessions.zone(t.cache.zoneName(t.site), t.cache.limit())
	t.zone.Store(z)
	return z
}

// zone finds or makes a zone.
func (s *sessionZones) zone(name string, limit int64) *sessionZone {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.zones == nil {
		s.zones = map[string]*sessionZone{}
	}
	z := s.zones[name]
	if z == nil {
		z = &sessionZone{entries: map[sessionID]*sessionEntry{}}
		s.zones[name] = z
	}
	z.resize(limit)
	return z
}

// retain forgets the zones that a new generation does not name.
func (s *sessionZones) retain(t *Table) {
	named := map[string]bool{}
	for _, server := range t.allServers() {
		if ssl := server.Level.Conf.SSL.server; ssl != nil {
			named[ssl.cache.zoneName(ssl.site)] = true
			if ssl.ocsp != nil {
				named["ocsp:"+ssl.ocsp.zone] = true
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range s.zones {
		if !named[name] {
			delete(s.zones, name)
		}
	}
}

// sessionID names a session.
type sessionID [32]byte

// sessionZone holds sessions, and the keys of tickets, that several servers
// share.
type sessionZone struct {
	mu          sync.Mutex
	entries     map[sessionID]*sessionEntry
	first, last *sessionEntry // by age
	size, limit int64

	keyed time.Time // when the newest key was made
	keys  *ticketKeys
}

type sessionEntry struct {
	id         sessionID
	state      []byte
	expires    time.Time
	prev, next *sessionEntry
}

func (e *sessionEntry) weight() int64 { return max(sessionSize, int64(len(e.state))) }

func (z *sessionZone) resize(limit int64) {
	z.mu.Lock()
	z.limit = limit
	z.shrink()
	z.mu.Unlock()
}

// shrink forgets the oldest sessions until the zone is within its limit.
func (z *sessionZone) shrink() {
	for z.size > z.limit && z.first != nil {
		z.remove(z.first)
	}
}

func (z *sessionZone) remove(e *sessionEntry) {
	if e.prev == nil {
		z.first = e.next
	} else {
		e.prev.next = e.next
	}
	if e.next == nil {
		z.last = e.prev
	} else {
		e.next.prev = e.prev
	}
	z.size -= e.weight()
	delete(z.entries, e.id)
}

// store keeps a session under its id, which must be new.
func (z *sessionZone) store(id sessionID, state []byte, expires time.Time) {
	z.mu.Lock()
	defer z.mu.Unlock()
	now := time.Now()
	for range 2 { // as nginx does, clear up a little with each new one
		if z.first != nil && now.After(z.first.expires) {
			z.remove(z.first)
		}
	}
	e := &sessionEntry{id: id, state: state, expires: expires, prev: z.last}
	if e.weight() > z.limit {
		return
	}
	if old := z.entries[id]; old != nil {
		z.remove(old)
		e.prev = z.last
	}
	if z.last == nil {
		z.first = e
	} else {
		z.last.next = e
	}
	z.last = e
	z.entries[id] = e
	z.size += e.weight()
	z.shrink()
}

// load finds a session that has not expired.
func (z *sessionZone) load(id sessionID) []byte {
	z.mu.Lock()
	defer z.mu.Unlock()
	e := z.entries[id]
	if e == nil {
		return nil
	}
	if time.Now().After(e.expires) {
		z.remove(e)
		return nil
	}
	return e.state
}

// forget drops a session.
func (z *sessionZone) forget(id sessionID) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if e := z.entries[id]; e != nil {
		z.remove(e)
	}
}

// ticketKeys gives the keys of tickets where no file has any. They are replaced
// when they are as old as a session may become, and open tickets as long again
// (ngx_ssl_rotate_ticket_keys).
func (z *sessionZone) ticketKeys(lifetime time.Duration) *ticketKeys {
	z.mu.Lock()
	defer z.mu.Unlock()
	if now := time.Now(); z.keys == nil || now.Sub(z.keyed) > lifetime {
		fresh := ticketKey{}
		_, _ = rand.Read(fresh.name[:])
		_, _ = rand.Read(fresh.key[:])
		keys := []ticketKey{fresh}
		if z.keys != nil {
			keys = append(keys, z.keys.all[0])
		}
		z.keys, z.keyed = newTicketKeys(keys), now
	}
	return z.keys
}

// ticketKey is one key that tickets are encrypted with. Its name stands in front
// of every ticket, as in OpenSSL.
type ticketKey struct {
	name [16]byte
	key  [32]byte
}

// ticketKeys are keys in use; the first one encrypts. They do not change.
type ticketKeys struct {
	all  []ticketKey
	ring tls.Config
}

func newTicketKeys(keys []ticketKey) *ticketKeys {
	k := &ticketKeys{all: keys}
	ring := make([][32]byte, len(keys))
	for i := range keys {
		ring[i] = keys[i].key
	}
	k.ring.SetSessionTicketKeys(ring)
	return k
}

func (k *ticketKeys) seal(cs tls.ConnectionState, s *tls.SessionState) ([]byte, error) {
	b, err := k.ring.EncryptTicket(cs, s)
	if err != nil {
		return nil, err
	}
	return append(k.all[0].name[:], b...), nil
}

// open gives nil for a ticket under another key.
func (k *ticketKeys) open(ticket []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
	for i := range k.all {
		if rest, ok := bytes.CutPrefix(ticket, k.all[i].name[:]); ok {
			return k.ring.DecryptTicket(rest, cs)
		}
	}
	return nil, nil //nolint:nilnil // somebody else's
}

// What a session carries beside its own state: which servers it is good for,
// when it ends, and its id. crypto/tls asks for a prefix of our own.
const (
	sessionMark  = "proxyctl\x00"
	sessionExtra = len(sessionMark) + 16 + 8 + 32
)

// sessionNote is that, read.
type sessionNote struct {
	context [16]byte
	expires time.Time
	id      sessionID
}

func (n *sessionNote) append(s *tls.SessionState) {
	b := make([]byte, 0, sessionExtra)
	b = append(b, sessionMark...)
	b = append(b, n.context[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(n.expires.Add(time.Second-1).Unix())) // a second that has begun counts
	s.Extra = append(s.Extra, append(b, n.id[:]...))
}

func readSessionNote(s *tls.SessionState) (n sessionNote, ok bool) {
	for _, b := range s.Extra {
		if len(b) != sessionExtra || !strings.HasPrefix(string(b), sessionMark) {
			continue
		}
		b = b[len(sessionMark):]
		n.context = [16]byte(b)
		n.expires = time.Unix(int64(binary.BigEndian.Uint64(b[16:])), 0)
		n.id = sessionID(b[24:])
		return n, true
	}
	return n, false
}

// sessions is how the sessions of one handshake are kept.
type sessions struct {
	zone    *sessionZone
	keys    *ticketKeys // nil: in zone
	timeout time.Duration
	context [16]byte
	note    sessionNote // of this connection's session
	known   bool        // note is valid
	off     bool        // ssl_session_cache is
}

// name gives a session that cannot be resumed an id all the same.
func (s *sessions) name() {
	_, _ = rand.Read(s.note.id[:])
	s.known = true
}

// wrap makes the ticket of a session. With TLS 1.2 a session that goes on keeps
// its id and its end; with TLS 1.3 each ticket is a session of its own.
func (s *sessions) wrap(cs tls.ConnectionState, state *tls.SessionState) ([]byte, error) {
	if !s.known || cs.Version >= tls.VersionTLS13 {
		s.note = sessionNote{context: s.context, expires: time.Now().Add(s.timeout)}
		_, _ = rand.Read(s.note.id[:])
		s.known = true
	}
	s.note.append(state)
	if s.keys != nil {
		return s.keys.seal(cs, state)
	}
	b, err := state.Bytes()
	if err != nil {
		return nil, err
	}
	s.zone.store(s.note.id, b, s.note.expires)
	return s.note.id[:], nil
}

// forget has the session of this connection not resumed again, if it is kept
// here.
func (s *sessions) forget() {
	if s.known && s.keys == nil && s.zone != nil {
		s.zone.forget(s.note.id)
	}
}

// unwrap finds the session of a ticket; nil asks for a full handshake.
func (s *sessions) unwrap(identity []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
	var state *tls.SessionState
	var err error
	switch {
	case s.keys != nil:
		state, err = s.keys.open(identity, cs)
	case len(identity) == len(sessionID{}):
		if b := s.zone.load(sessionID(identity)); b != nil {
			state, err = tls.ParseSessionState(b)
		}
	}
	if err != nil || state == nil {
		return nil, nil //nolint:nilerr,nilnil // a ticket of somebody else
	}
	n, ok := readSessionNote(state)
	if !ok || n.context != s.context || !time.Now().Before(n.expires) {
		return nil, nil //nolint:nilnil // not for this server, or too old
	}
	s.note, s.known = n, true
	return state, nil
}
