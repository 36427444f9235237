//go:build !race

package sock

const racing = false
