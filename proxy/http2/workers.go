package http2

import "sync"

// maxIdle is how many goroutines without work are kept for the next.
const maxIdle = 64

// Workers are the goroutines that run handlers. Those that are idle keep their
// grown stacks, which is what a new goroutine would cost most. The zero value is
// ready.
type Workers struct {
	mu   sync.Mutex
	idle []chan *Stream // the one used last is the first to be used again
}

// run has a worker serve s.
func (w *Workers) run(s *Stream) {
	w.mu.Lock()
	if n := len(w.idle); n > 0 {
		c := w.idle[n-1]
		w.idle = w.idle[:n-1]
		w.mu.Unlock()
		c <- s
		return
	}
	w.mu.Unlock()
	go w.work(s)
}

func (w *Workers) work(s *Stream) {
	c := make(chan *Stream, 1)
	for {
		s.serve()
		w.mu.Lock()
		if len(w.idle) >= maxIdle {
			w.mu.Unlock()
			return
		}
		w.idle = append(w.idle, c)
		w.mu.Unlock()
		s = <-c
	}
}
