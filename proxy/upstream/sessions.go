package upstream

import (
	"container/list"
	"crypto/md5"
	"sync"
	"time"
)

// Sessions remembers the ID of the peer that each session of clients belongs
// to, up to a number of sessions. It is safe for concurrent use.
type Sessions struct {
	most    int
	timeout time.Duration

	mu    sync.Mutex
	known map[[md5.Size]byte]*list.Element
	order list.List // of *session, the one used last in front
}

// session is kept under the hash of its name, so that long names cost no more
// than others.
type session struct {
	key  [md5.Size]byte
	id   string
	last int64
}

// NewSessions makes room for a number of sessions, each of which is forgotten
// when it has not been used for the given time.
func NewSessions(most int, timeout time.Duration) *Sessions {
	return &Sessions{most: most, timeout: timeout, known: map[[md5.Size]byte]*list.Element{}}
}

// SetTimeout changes what NewSessions was given.
func (s *Sessions) SetTimeout(timeout time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timeout = timeout
}

// Lookup appends the ID of the peer of a session to dst.
func (s *Sessions) Lookup(dst, name []byte, now int64) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire(now)
	if e := s.known[md5.Sum(name)]; e != nil {
		dst = append(dst, e.Value.(*session).id...)
	}
	return dst
}

// Learn notes that a session belongs to the peer with id, now. An unknown one
// is only taken up with create. It reports that another one had to be forgotten
// before its time.
func (s *Sessions) Learn(name []byte, id string, create bool, now int64) (full bool) {
	key := md5.Sum(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire(now)
	if e := s.known[key]; e != nil {
		v := e.Value.(*session)
		v.id, v.last = id, now
		s.order.MoveToFront(e)
		return false
	}
	if !create {
		return false
	}
	for len(s.known) >= s.most && len(s.known) > 0 {
		s.forget(s.order.Back())
		full = true
	}
	s.known[key] = s.order.PushFront(&session{key, id, now})
	return full
}

// expire forgets what has not been used for long.
func (s *Sessions) expire(now int64) {
	for {
		e := s.order.Back()
		if e == nil || now-e.Value.(*session).last < int64(s.timeout) {
			return
		}
		s.forget(e)
	}
}

func (s *Sessions) forget(e *list.Element) {
	delete(s.known, e.Value.(*session).key)
	s.order.Remove(e)
}
