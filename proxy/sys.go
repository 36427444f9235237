package proxy

import (
	"errors"
	"fmt"
	"syscall"
	"time"
)

// What the operating system says, in the words of its C library: operators
// search logs for "(2: No such file or directory)".

// sysText gives the C library's text of an error number.
func sysText(e syscall.Errno) string {
	text := e.Error()
	if text != "" && text[0] >= 'a' && text[0] <= 'z' {
		text = string(text[0]-'a'+'A') + text[1:]
	}
	return text
}

// errnoOf finds the error number in err, 0 when there is none.
func errnoOf(err error) syscall.Errno {
	var e syscall.Errno
	errors.As(err, &e)
	return e
}

// Errno gives the number of a system error, 0 when it is none.
func Errno(err error) int { return int(errnoOf(err)) }

// SystemText gives the C library's text of a system error.
func SystemText(err error) string { return sysText(errnoOf(err)) }

// SystemError words a failed call as nginx does: `open() "path" failed (2: No
// such file or directory)`.
func SystemError(call, path string, err error) error {
	return &callError{fmt.Sprintf("%s %q failed", call, path), err}
}

// callError is a failed call of the system: text and error number.
type callError struct {
	text string
	err  error
}

func (e *callError) Error() string { return errorWithCode(e.text, e.err).Error() }

func (e *callError) Unwrap() error { return e.err }

// parseHTTPTime reads the three date forms of RFC 9110, section 5.6.7, as
// seconds since 1970.
func parseHTTPTime(v []byte) (int64, bool) {
	for _, layout := range []string{"Mon, 02 Jan 2006 15:04:05 GMT", time.RFC850, time.ANSIC} {
		if t, err := time.Parse(layout, string(v)); err == nil {
			return t.Unix(), true
		}
	}
	return 0, false
}
