package proxy

import (
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
)

// Files of TLS, and the words of OpenSSL 3 for what is wrong with them:
// operators and tools search for these texts.

// pemError is a file without what is looked for.
type pemError struct{ ssl string }

func (e *pemError) Error() string { return e.ssl }

// maxPEM is how large a file of certificates may be.
const maxPEM = 64 << 20

// readPEMFile reads the blocks of the given types. The error words what
// OpenSSL says: a *pemError when the file could be read but has none.
func readPEMFile(name string, types ...string) ([][]byte, error) {
	text, err := readTLSFile(name)
	if err != nil {
		return nil, err
	}
	var out [][]byte
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		for _, t := range types {
			if block.Type == t {
				out = append(out, block.Bytes)
			}
		}
	}
	if len(out) == 0 {
		return nil, &pemError{"SSL: error:0480006C:PEM routines::no start line:Expecting: " + types[0]}
	}
	return out, nil
}

func readTLSFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, openError(name, err)
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, maxPEM))
	if err != nil {
		return nil, openError(name, err)
	}
	return text, nil
}

// fileError is a file that cannot be opened, in OpenSSL's words.
type fileError struct {
	text string
	err  error
}

func (e *fileError) Error() string { return e.text }

func (e *fileError) Unwrap() error { return e.err }

// openError words a failed BIO_new_file().
func openError(name string, err error) error {
	e := errnoOf(err)
	system := sysText(e)
	how := "10080002:BIO routines::system lib"
	if e == syscall.ENOENT {
		how = "10000080:BIO routines::no such file"
	}
	return &fileError{fmt.Sprintf("SSL: error:8000%04X:system library::%s:calling fopen(%s, r) error:%s", int(e), system, name, how), err}
}

// loadError words what a failed load of certificates looks like.
func loadError(what, name, call string, err error) error {
	var p *pemError
	if !errors.As(err, &p) {
		call = "BIO_new_file"
	}
	return fmt.Errorf("cannot load %s %q: %s() failed (%s)", what, name, call, strings.TrimSpace(err.Error()))
}

// readTicketKey reads a file of 48 or 80 bytes: the keys of one
// ssl_session_ticket_key. The format is nginx's; what is made of it is not, so
// sessions are not shared with nginx itself.
func readTicketKey(name string) (k ticketKey, err error) {
	f, err := os.Open(name)
	if err != nil {
		return k, say("%s", SystemError("open()", name, err))
	}
	defer func() { _ = f.Close() }()
	var b [81]byte
	n, err := io.ReadFull(f, b[:])
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return k, say("%s", SystemError("read()", name, err))
	}
	if n != 48 && n != 80 {
		return k, say("%q must be 48 or 80 bytes", name)
	}
	copy(k.name[:], b[:])
	k.key = sha256.Sum256(b[:n])
	return k, nil
}
