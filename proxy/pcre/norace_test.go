//go:build !race

package pcre

const racing = false
