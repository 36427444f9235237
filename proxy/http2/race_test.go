//go:build race

package http2

// racing: the race detector makes pools forget, so that budgets do not hold.
const racing = true
