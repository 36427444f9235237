package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"

	"proxyctl/proxy"
)

// What a running server is told by signals (ngx_master_process_cycle). One
// goroutine hears them, one after the other.

// listenSignals must come before anybody can know the process's number.
func listenSignals() chan os.Signal {
	signals := make(chan os.Signal, 64)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP,
		syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH)
	return signals
}

// wait serves until a signal ends the process, and returns the exit status.
func (p *process) wait() int {
	defer p.cleanUp()
	for {
		select {
		case s := <-p.signals:
			if p.hear(s.(syscall.Signal)) {
				return 0
			}
		case status := <-p.successor.exited():
			p.successorExited(status)
		case <-p.ended:
			return 0
		}
	}
}

// hear does what a signal asks for. True: the process ends now.
func (p *process) hear(s syscall.Signal) (end bool) {
	does := map[syscall.Signal]struct {
		text string
		do   func()
	}{
		syscall.SIGHUP:   {", reconfiguring", p.onReload},
		syscall.SIGUSR1:  {", reopening logs", p.reopen},
		syscall.SIGUSR2:  {", changing binary", p.changeBinary},
		syscall.SIGWINCH: {", stop accepting connections", p.pause},
		syscall.SIGQUIT:  {", shutting down", p.quit},
		syscall.SIGTERM:  {", exiting", p.stop},
		syscall.SIGINT:   {", exiting", p.stop},
	}[s]
	ignored := s == syscall.SIGUSR2 && p.mayNotChange()
	switch {
	case ignored:
		does.text = ", ignoring"
	case s == syscall.SIGWINCH && !p.daemonized():
		does.text, ignored = "", true // terminals send it when their size changes
	}
	p.runtime.Logf(proxy.LogNotice, "signal %d (%s) received%s", int(s), unix.SignalName(s), does.text)
	switch {
	case ignored && s == syscall.SIGUSR2:
		p.runtime.Logf(proxy.LogCrit, "the changing binary signal is ignored: you should shutdown or terminate before either old or new binary's process")
	case ignored:
	case p.abort == nil || s == syscall.SIGTERM || s == syscall.SIGINT:
		does.do()
		return p.abort == nil && (s == syscall.SIGTERM || s == syscall.SIGINT)
	case s == syscall.SIGHUP:
		p.control.begin().finished(errEnding)
	}
	return false
}

// onReload loads the configuration anew. A server whose new binary runs serves
// its own again instead, after WINCH. One that was tried in a terminal ends with
// it.
func (p *process) onReload() {
	if p.site && p.origin.terminal && !hasTerminal() {
		p.quit()
		return
	}
	if p.successor != nil {
		p.resume()
		p.control.begin().finished(nil)
		return
	}
	p.reload()
}

func (p *process) reopen() {
	_ = p.runtime.AsRoot(func() error {
		p.runtime.ReopenLogs()
		return nil
	})
}

// pause ends serving; the process stays.
func (p *process) pause() {
	p.paused = true
	p.runtime.Pause()
}

func (p *process) resume() {
	p.paused = false
	p.runtime.Resume()
}

// quit ends gracefully.
func (p *process) quit() {
	p.notifyStopping()
	ctx, cancel := context.WithCancel(context.Background())
	p.abort = cancel
	go func() {
		p.runtime.Shutdown(ctx)
		close(p.ended)
	}()
}

// stop ends at once, even in the middle of a graceful end.
func (p *process) stop() {
	if p.abort != nil {
		p.abort()
		return
	}
	p.notifyStopping()
	p.runtime.Stop()
}
