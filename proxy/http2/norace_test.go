//go:build !race

package http2

const racing = false
