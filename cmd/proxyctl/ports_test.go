package main

import (
	"math/rand/v2"
	"net"
	"strconv"
	"sync/atomic"
)

// The ports that tests bind later are outside the range that systems take ports
// for outgoing connections from (32768 and up on Linux, 49152 and up elsewhere):
// a free port of that range may be in use a moment later.
const firstPort, portCount = 12000, 20000

var nextPort = func() *atomic.Uint32 {
	var n atomic.Uint32
	n.Store(rand.Uint32N(portCount))
	return &n
}()

// unusedPort finds a port that nobody listens on, a new one with each call.
func unusedPort(t interface{ Fatal(...any) }) int {
	for range portCount {
		port := firstPort + int(nextPort.Add(1)%portCount)
		if l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port)); err == nil {
			_ = l.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}
