package proxy

import (
	"os"
	"time"
)

// limit_rate and limit_rate_after: how fast an answer goes out
// (ngx_http_write_filter).

// pace is what an answer keeps to. As in nginx a second's worth may go out at
// once, and rests follow that are as long as what went out takes.
type pace struct {
	rate  int64 // bytes a second; 0: no limit
	after int64 // how many go out before that
	sent  int64 // so far, with the head
	rest  time.Time
}

// setPace finds out the pace of an answer whose head has been written.
func (x *Exchange) setPace() {
	core := &x.loc.Conf.Core
	if !x.limitRateSet {
		if core.LimitRate == nil || x.inner.level > 0 { // what is put into an answer goes at its pace
			return
		}
		x.limitRate, x.limitRateSet = x.size(core.LimitRate), true
	}
	x.pace = pace{rate: x.limitRate}
	if x.pace.rate == 0 {
		return
	}
	x.pace.after = x.size(core.LimitRateAfter)
	if s, ok := x.stream.(*http1Stream); ok {
		x.paceHead(s)
	}
}

// paceHead sends the beginning of a head that is too long for a second; the rest
// goes out with the body.
func (x *Exchange) paceHead(s *http1Stream) {
	left := s.headSize
	for {
		limit, ok := x.allowed()
		if !ok || limit >= left {
			break
		}
		earlier := int64(len(s.conn.Out)) - left // of answers before this one
		if s.conn.FlushPart(int(earlier+limit)) != nil {
			break
		}
		x.pace.count(limit)
		left -= limit
	}
	x.pace.sent += left
}

// size evaluates a size. One that is none is 0.
func (x *Exchange) size(v *Value) int64 {
	if v == nil {
		return 0
	}
	n, ok := parseSize(v.String(x))
	if !ok {
		return 0
	}
	return n
}

// allowed waits until something may go out, and says how much. False: the
// connection is to end.
func (x *Exchange) allowed() (int64, bool) {
	p := &x.pace
	if !x.sleep(time.Until(p.rest)) {
		return 0, false
	}
	for {
		seconds := time.Now().Unix() - x.start.Unix() + 1
		limit := p.rate*seconds - (p.sent - p.after)
		if limit > 0 {
			return limit, true
		}
		if !x.sleep(time.Duration(-limit*1000/p.rate+1) * time.Millisecond) {
			return 0, false
		}
	}
}

// count notes what has gone out, and how long to rest for it.
func (p *pace) count(n int64) {
	before := max(p.sent-p.after, 0)
	p.sent += n
	over := max(p.sent-p.after, 0) - before
	p.rest = time.Now().Add(time.Duration(over*1000/p.rate) * time.Millisecond)
}

// writePaced writes body bytes at the pace.
func (x *Exchange) writePaced(p []byte, last bool) error {
	for {
		limit, ok := x.allowed()
		if !ok {
			return os.ErrDeadlineExceeded
		}
		n := min(limit, int64(len(p)))
		if err := x.stream.writeBody(x, p[:n], last && n == int64(len(p))); err != nil {
			return err
		}
		if err := x.stream.flush(); err != nil {
			return err
		}
		x.bodySent += n
		x.pace.count(n)
		if p = p[n:]; len(p) == 0 {
			return nil
		}
	}
}

// sleep waits; false: the connection is to end.
func (x *Exchange) sleep(d time.Duration) bool {
	const look = 100 * time.Millisecond
	if d > 0 {
		x.willWait()
	}
	for ; d > 0; d -= look {
		time.Sleep(min(d, look))
		switch s := x.stream.(type) {
		case *http1Stream:
			if s.conn.Aborted() || x.client.sock != nil && x.client.sock.Gone() {
				return false
			}
		case *http2Stream:
			if s.st.Gone() {
				return false
			}
		case *http3Stream:
			if s.st.Gone() {
				return false
			}
		}
	}
	return true
}
