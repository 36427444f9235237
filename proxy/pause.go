package proxy

import (
	"context"
	"os"
)

// What nginx's master does without its workers: it keeps the sockets, so that
// another process can serve in its place and it can serve again itself.

// Pause ends serving gracefully and keeps the sockets: new connections wait
// for Resume, a Reload, or another process that has the sockets (nginx: WINCH).
func (r *Runtime) Pause() {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.table.Load()
	if t == nil || r.ended || r.paused != nil {
		return
	}
	t.Main.ErrorLog.logf(logNotice, "gracefully shutting down")
	ctx, cancel := context.WithCancel(context.Background())
	r.paused = cancel
	r.closing.Store(true)
	for _, b := range r.bound {
		b.pause()
	}
	r.clients.each((*client).retire)
	r.drainWithin(t.Main.WorkerShutdownTimeout, func(c *client) bool { return c.life.asked() })
	go func() {
		if r.clients.wait(ctx) {
			r.Logf(logNotice, "exiting")
			r.Logf(logNotice, "worker process %d exited with code 0", os.Getpid())
		}
	}()
}

// Resume serves again after Pause.
func (r *Runtime) Resume() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.paused != nil && !r.ended {
		r.resume()
		r.Logf(logNotice, "start worker processes")
	}
}

// resume accepts from all sockets that are not accepted from yet.
func (r *Runtime) resume() {
	if r.paused != nil {
		r.paused()
		r.paused = nil
	}
	r.closing.Store(false)
	for _, b := range r.bound {
		b.serve(r)
	}
}

// HandedOver says whether another process has the sockets now and keeps them
// after the end of this one: then the files of unix sockets stay.
func (r *Runtime) HandedOver(yes bool) { r.heir.Store(yes) }
