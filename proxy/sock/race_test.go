//go:build race

package sock

// racing: the race detector makes pools forget, so that budgets do not hold.
const racing = true
