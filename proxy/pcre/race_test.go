//go:build race

package pcre

// racing: the race detector makes pools forget, so that budgets do not hold.
const racing = true
