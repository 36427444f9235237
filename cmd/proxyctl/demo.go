package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"syscall"
	"time"
)

// demoApp stands in for the application behind a proxied site: it answers with
// what reached it.
type demoApp struct{}

// answerFor starts the app on a loopback address where nothing listens.
func (demoApp) answerFor(a netip.AddrPort) bool {
	if !a.Addr().IsLoopback() {
		return false
	}
	c, err := net.DialTimeout("tcp", a.String(), time.Second)
	if err == nil {
		_ = c.Close()
		return false
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return false
	}
	l, err := net.Listen("tcp", a.String())
	if err != nil {
		return false
	}
	s := &http.Server{Handler: http.HandlerFunc(showRequest), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = s.Serve(l) }()
	return true
}

// showRequest prints the request as it arrived.
func showRequest(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintf(w, "Hello from the demo app behind the proxy.\n\n%s %s %s\nHost: %s\n", r.Method, r.RequestURI, r.Proto, r.Host)
	names := make([]string, 0, len(r.Header))
	for name := range r.Header {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		for _, v := range r.Header[name] {
			fmt.Fprintf(w, "%s: %s\n", name, v)
		}
	}
}
