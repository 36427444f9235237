//go:build race

package http1

// racing: the race detector makes pools forget, so that budgets do not hold.
const racing = true
