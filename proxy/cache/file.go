package cache

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
)

// A file begins with a header of fixed size in the machine's byte order, then
// come the text of the key, the head of the answer, and its body. The layout is
// that of nginx's cache of version 5 (ngx_http_file_cache_header_t on 64 bits).

const (
	fileVersion = 5
	headerSize  = 336
	maxETag     = 128
	keyPrefix   = "\nKEY: "
)

// MaxVary is how long the list of fields may be that an answer varies with.
const MaxVary = 128

// The places of the header's fields.
const (
	atVersion      = 0
	atValid        = 8
	atUpdating     = 16
	atError        = 24
	atLastModified = 32
	atDate         = 40
	atCRC          = 48
	atHeadStart    = 54
	atBodyStart    = 56
	atETag         = 58 // its length, then itself
	atVary         = atETag + 1 + maxETag
	atVariant      = atVary + 1 + MaxVary
)

// Meta is what a file says about its answer. Times are in seconds since 1970.
type Meta struct {
	Valid        int64 // until when it may be used
	Updating     int64 // for how many seconds longer while it is updated
	Error        int64 // for how many seconds longer when asking fails
	LastModified int64 // -1: not said
	Date         int64 // when it was stored or last confirmed
	ETag, Vary   []byte
}

// header is the beginning of a file.
type header struct {
	Meta
	crc                  uint32
	headStart, bodyStart int
	variant              Key
}

func (h *header) append(dst []byte) []byte {
	b := make([]byte, headerSize)
	e := binary.NativeEndian
	e.PutUint64(b[atVersion:], fileVersion)
	for at, v := range map[int]int64{atValid: h.Valid, atUpdating: h.Updating, atError: h.Error, atLastModified: h.LastModified, atDate: h.Date} {
		e.PutUint64(b[at:], uint64(v))
	}
	e.PutUint32(b[atCRC:], h.crc)
	e.PutUint16(b[atHeadStart:], uint16(h.headStart))
	e.PutUint16(b[atBodyStart:], uint16(h.bodyStart))
	if len(h.ETag) <= maxETag {
		b[atETag] = byte(len(h.ETag))
		copy(b[atETag+1:], h.ETag)
	}
	b[atVary] = byte(copy(b[atVary+1:atVariant], h.Vary))
	if len(h.Vary) > 0 {
		copy(b[atVariant:], h.variant[:])
	}
	return append(dst, b...)
}

var errVersion = errors.New("version mismatch")

// parse reads a header. The slices are b's.
func (h *header) parse(b []byte) error {
	if len(b) < headerSize {
		return errors.New("is too small")
	}
	e := binary.NativeEndian
	if e.Uint64(b[atVersion:]) != fileVersion {
		return errVersion
	}
	number := func(at int) int64 { return int64(e.Uint64(b[at:])) }
	h.Valid, h.Updating, h.Error = number(atValid), number(atUpdating), number(atError)
	h.LastModified, h.Date = number(atLastModified), number(atDate)
	h.crc = e.Uint32(b[atCRC:])
	h.headStart, h.bodyStart = int(e.Uint16(b[atHeadStart:])), int(e.Uint16(b[atBodyStart:]))
	etag, vary := int(b[atETag]), int(b[atVary])
	if etag > maxETag || vary > MaxVary {
		return errors.New("has incorrect vary length")
	}
	h.ETag, h.Vary = b[atETag+1:atETag+1+etag], b[atVary+1:atVary+1+vary]
	copy(h.variant[:], b[atVariant:])
	if h.headStart < headerSize || h.bodyStart < h.headStart {
		return errors.New("has an incorrect header")
	}
	return nil
}

// sum is the check sum of a key's text.
func sum(text []byte) uint32 { return crc32.ChecksumIEEE(text) }

// name is where the answer with a key is kept.
func (o *Options) name(key Key) string {
	digits := hex.EncodeToString(key[:])
	name := make([]byte, 0, len(o.Path)+len(digits)+12)
	name = append(name, o.Path...)
	end := len(digits)
	for _, n := range o.Levels {
		name = append(append(name, '/'), digits[end-n:end]...)
		end -= n
	}
	return string(append(append(name, '/'), digits...))
}

// keyOf reads the key out of a file's name.
func keyOf(name string) (key Key, ok bool) {
	if len(name) != hex.EncodedLen(len(key)) {
		return key, false
	}
	_, err := hex.Decode(key[:], []byte(name))
	return key, err == nil
}

// fileID tells a file from another that took its name.
type fileID struct{ device, inode uint64 }

// inspect gives the identity of a file, its length, and what it takes on disk.
func inspect(info fs.FileInfo) (id fileID, length, size int64) {
	length, size = info.Size(), info.Size()
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		id = fileID{st.Dev, st.Ino}
		size = max(st.Blocks*512, length)
	}
	return id, length, size
}

// createBeside makes a file in the folder of name: its name with ten digits
// behind it, which loading skips.
func createBeside(name string) (*os.File, error) {
	for tries := 0; ; tries++ {
		f, err := os.OpenFile(fmt.Sprintf("%s.%010d", name, rand.Uint64N(1e10)), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		switch {
		case err == nil || tries > 20:
			return f, err
		case errors.Is(err, fs.ErrNotExist):
			if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
				return nil, err
			}
		case !errors.Is(err, fs.ErrExist):
			return nil, err
		}
	}
}

// move gives the file at from its final name. Folders that are missing are made;
// a file of another file system is copied.
func move(from, to string) error {
	err := os.Rename(from, to)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			return err
		}
		err = os.Rename(from, to)
	}
	if errors.Is(err, syscall.EXDEV) {
		err = copyOver(from, to)
	}
	return err
}

func copyOver(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := createBeside(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Close()); err == nil {
		err = os.Rename(out.Name(), to)
	}
	if err != nil {
		_ = os.Remove(out.Name())
		return err
	}
	return os.Remove(from)
}
