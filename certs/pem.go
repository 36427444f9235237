package certs

import (
	"bytes"
	"encoding/base64"
	"strings"
)

// pemScanner walks the PEM blocks of a text by the rules of OpenSSL's reader,
// which are stricter than encoding/pem's: a block that is cut off or damaged is
// an error, not text between blocks. That is how a file that is still being
// written is told from a whole one.
type pemScanner struct {
	rest  []byte
	begun bool
}

// pemBlock is one block with its text decoded.
type pemBlock struct {
	label  string
	header string // the lines before the blank one, "" mostly
	der    []byte
}

// pemError is why no block could be read, in OpenSSL's words with its code; ""
// is a failure that OpenSSL gives no reason for.
type pemError string

func (e pemError) Error() string { return string(e) }

const (
	errNoStart  pemError = "error:0480006C:PEM routines::no start line"
	errBadEnd   pemError = "error:04800066:PEM routines::bad end line"
	errBase64   pemError = "error:04800064:PEM routines::bad base64 decode"
	errProcType pemError = "error:0480006B:PEM routines::not proc type"
	errSilent   pemError = ""
)

const (
	pemBegin = "-----BEGIN "
	pemEnd   = "-----END "
	pemTail  = "-----"
	// OpenSSL reads lines in pieces of this length: a longer one never begins
	// a block.
	pemMaxBegin = 254
)

// next reads the next block, whatever its label; errNoStart is the end of the
// text. After another error the scanner stands behind what it has read.
func (s *pemScanner) next() (pemBlock, error) {
	label, ok := s.begin()
	if !ok {
		return pemBlock{}, errNoStart
	}
	header, body, err := s.body(label)
	if err != nil {
		return pemBlock{}, err
	}
	der, err := decodeBody(body)
	if err != nil {
		return pemBlock{}, err
	}
	return pemBlock{label, header, der}, nil
}

// begin skips to the line that begins a block.
func (s *pemScanner) begin() (label string, ok bool) {
	for len(s.rest) > 0 {
		line := s.line()
		if len(line) >= pemMaxBegin || !bytes.HasPrefix(line, []byte(pemBegin)) {
			continue
		}
		label, ok := strings.CutSuffix(string(line[len(pemBegin):]), pemTail)
		if ok {
			return label, true
		}
	}
	return "", false
}

// body reads up to the line that ends the block. A blank line makes what came
// before it the header; lines after one are then of 64 characters, but for the
// last.
func (s *pemScanner) body(label string) (header string, body []byte, err error) {
	split, short := false, false
	for {
		if len(s.rest) == 0 {
			return "", nil, errBadEnd
		}
		line := s.line()
		switch {
		case len(line) == 0:
			if split {
				return "", nil, errBadEnd
			}
			header, body, split = string(body), nil, true
		case bytes.HasPrefix(line, []byte(pemEnd)):
			if string(line) != pemEnd+label+pemTail {
				return "", nil, errBadEnd
			}
			return header, body, nil
		case short:
			return "", nil, errBadEnd
		case split && len(line) > 64:
			return "", nil, errSilent
		default:
			short = split && len(line) < 64
			body = append(append(body, line...), '\n')
		}
	}
}

// line takes a line without its end and without white space and control
// characters before that.
func (s *pemScanner) line() []byte {
	line, rest, _ := bytes.Cut(s.rest, []byte{'\n'})
	s.rest = rest
	if !s.begun {
		s.begun = true
		line = bytes.TrimPrefix(line, []byte("\xef\xbb\xbf"))
	}
	for len(line) > 0 && line[len(line)-1] <= ' ' {
		line = line[:len(line)-1]
	}
	return line
}

// decodeBody decodes base64. White space means nothing, and OpenSSL takes "-"
// for the end.
func decodeBody(body []byte) ([]byte, error) {
	text := make([]byte, 0, len(body))
	for _, c := range body {
		if c == '-' {
			break
		}
		if c != ' ' && c != '\t' && c != '\r' && c != '\n' {
			text = append(text, c)
		}
	}
	der := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	n, err := base64.StdEncoding.Decode(der, text)
	if err != nil {
		return nil, errBase64
	}
	return der[:n], nil
}
