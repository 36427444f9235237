package main

import (
	"bytes"
	"os"
	"strconv"

	"proxyctl/proxy"
)

// oldSuffix marks the pid file of a server whose new binary has been started.
const oldSuffix = ".oldbin"

// writePID writes the pid file, "" for none.
func (p *process) writePID(path string) error {
	if path == "" {
		p.pidFile = ""
		return nil
	}
	err := os.WriteFile(path, pidText(), 0o644)
	if err != nil {
		return proxy.SystemError("open()", path, err)
	}
	p.pidFile = path
	return nil
}

func pidText() []byte { return []byte(strconv.Itoa(os.Getpid()) + "\n") }

// currentPID is where the pid file is now.
func (p *process) currentPID() string {
	if p.successor != nil && p.pidFile != "" {
		return p.pidFile + oldSuffix
	}
	return p.pidFile
}

// removePID removes a pid file, unless another server has overwritten it.
func removePID(path string) {
	if text, err := os.ReadFile(path); err == nil && bytes.Equal(text, pidText()) {
		_ = os.Remove(path)
	}
}

// checkPID opens the pid file, as nginx -t does.
//
// Unlike nginx, a file that did not exist is not left behind empty.
func checkPID(path string) error {
	if path == "" {
		return nil
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return proxy.SystemError("open()", path, err)
	}
	if info, err := f.Stat(); err == nil && info.Size() == 0 {
		_ = os.Remove(path)
	}
	return f.Close()
}
