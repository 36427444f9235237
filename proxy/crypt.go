package proxy

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"hash"
	"strconv"
	"strings"

	"golang.org/x/crypto/bcrypt"
)

// Passwords as they are kept in password files: the schemes of nginx
// (ngx_crypt.c) and those of crypt(3) that are in use.

// passwordMatches says whether a password is the one that is kept as hashed.
// False for known: the scheme is not supported.
func passwordMatches(password, hashed string) (matches, known bool) {
	var made string
	switch {
	case strings.HasPrefix(hashed, "$apr1$"):
		made = cryptMD5("$apr1$", password, hashed)
	case strings.HasPrefix(hashed, "{PLAIN}"):
		made = "{PLAIN}" + password
	case strings.HasPrefix(hashed, "{SSHA}"):
		made = cryptSSHA(password, hashed)
	case strings.HasPrefix(hashed, "{SHA}"):
		sum := sha1.Sum([]byte(password))
		made = "{SHA}" + base64.StdEncoding.EncodeToString(sum[:])
	case strings.HasPrefix(hashed, "$1$"):
		made = cryptMD5("$1$", password, hashed)
	case strings.HasPrefix(hashed, "$5$"):
		made = cryptSHA("$5$", password, hashed, sha256.New, sha256Order())
	case strings.HasPrefix(hashed, "$6$"):
		made = cryptSHA("$6$", password, hashed, sha512.New, sha512Order())
	case strings.HasPrefix(hashed, "$2"):
		// bcrypt looks at 72 bytes, as crypt(3) does
		return bcrypt.CompareHashAndPassword([]byte(hashed), []byte(password[:min(len(password), 72)])) == nil, true
	case strings.HasPrefix(hashed, "$") || strings.HasPrefix(hashed, "_"):
		return false, false
	default:
		made = cryptDES(password, hashed)
	}
	return made != "" && subtle.ConstantTimeCompare([]byte(made), []byte(hashed)) == 1, true
}

// cryptAlphabet are the digits of crypt(3).
const cryptAlphabet = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// appendCrypt64 appends n digits of v, the least first.
func appendCrypt64(dst []byte, v uint32, n int) []byte {
	for range n {
		dst = append(dst, cryptAlphabet[v&0x3f])
		v >>= 6
	}
	return dst
}

// cryptSSHA hashes with the salt behind the digest in hashed.
func cryptSSHA(password, hashed string) string {
	decoded, err := base64.StdEncoding.DecodeString(hashed[len("{SSHA}"):])
	if err != nil || len(decoded) < sha1.Size {
		return ""
	}
	salt := decoded[sha1.Size:]
	sum := sha1.Sum(append([]byte(password), salt...))
	return "{SSHA}" + base64.StdEncoding.EncodeToString(append(sum[:], salt...))
}

// cryptSalt gives the salt behind a scheme's name: up to n bytes without "$".
func cryptSalt(hashed string, n int) string {
	salt, _, _ := strings.Cut(hashed, "$")
	return salt[:min(len(salt), n)]
}

// cryptMD5 is the MD5 scheme of FreeBSD and, under another name, of Apache.
func cryptMD5(scheme, password, hashed string) string {
	salt := cryptSalt(hashed[len(scheme):], 8)
	digest := func(parts ...string) []byte {
		sum := md5.Sum([]byte(strings.Join(parts, "")))
		return sum[:]
	}
	mixed := []byte(password + scheme + salt)
	other := digest(password, salt, password)
	for n := len(password); n > 0; n -= len(other) {
		mixed = append(mixed, other[:min(n, len(other))]...)
	}
	for n := len(password); n > 0; n >>= 1 {
		if n&1 != 0 {
			mixed = append(mixed, 0)
		} else {
			mixed = append(mixed, password[0])
		}
	}
	sum := digest(string(mixed))
	for i := range 1000 {
		sum = digest(cryptRound(i, string(sum), password, salt)...)
	}
	out := []byte(scheme + salt + "$")
	for _, o := range [][3]int{{0, 6, 12}, {1, 7, 13}, {2, 8, 14}, {3, 9, 15}, {4, 10, 5}} {
		out = appendCrypt64(out, uint32(sum[o[0]])<<16|uint32(sum[o[1]])<<8|uint32(sum[o[2]]), 4)
	}
	return string(appendCrypt64(out, uint32(sum[11]), 2))
}

// cryptRound is what one round of the MD5 and SHA schemes hashes.
func cryptRound(i int, sum, password, salt string) []string {
	first, last := sum, password
	if i&1 != 0 {
		first, last = password, sum
	}
	parts := make([]string, 1, 4)
	parts[0] = first
	if i%3 != 0 {
		parts = append(parts, salt)
	}
	if i%7 != 0 {
		parts = append(parts, password)
	}
	return append(parts, last)
}

// maxCryptRounds bounds the work that a password file asks for. Unlike
// crypt(3), which takes up to a thousand million rounds.
const maxCryptRounds = 1000000

// cryptSHA are the SHA-256 and SHA-512 schemes.
func cryptSHA(scheme, password, hashed string, newHash func() hash.Hash, order [][3]int) string {
	rest, rounds, note := hashed[len(scheme):], 5000, ""
	if text, ok := strings.CutPrefix(rest, "rounds="); ok {
		number, behind, found := strings.Cut(text, "$")
		n, err := strconv.Atoi(number)
		if !found || err != nil || n > maxCryptRounds {
			return ""
		}
		rounds, rest = max(n, 1000), behind
		note = "rounds=" + strconv.Itoa(rounds) + "$"
	}
	salt := cryptSalt(rest, 16)
	digest := func(parts ...string) string {
		h := newHash()
		for _, p := range parts {
			h.Write([]byte(p))
		}
		return string(h.Sum(nil))
	}
	stretch := func(s string, n int) string { return strings.Repeat(s, n/len(s)+1)[:n] }

	other := digest(password, salt, password)
	parts := []string{password, salt, stretch(other, len(password))}
	for n := len(password); n > 0; n >>= 1 {
		if n&1 != 0 {
			parts = append(parts, other)
		} else {
			parts = append(parts, password)
		}
	}
	sum := digest(parts...)
	p := stretch(digest(strings.Repeat(password, len(password))), len(password))
	s := stretch(digest(strings.Repeat(salt, 16+int(sum[0]))), len(salt))
	for i := range rounds {
		sum = digest(cryptRound(i, sum, p, s)...)
	}
	out := []byte(scheme + note + salt + "$")
	for _, o := range order {
		v, digits := uint32(0), 4
		for _, at := range o {
			v <<= 8
			if at >= 0 {
				v |= uint32(sum[at])
			} else {
				digits--
			}
		}
		out = appendCrypt64(out, v, digits)
	}
	return string(out)
}

// sha256Order and sha512Order are the orders in which bytes of the digests are
// written; -1 is none.
func sha256Order() [][3]int {
	var o [][3]int
	for i := range 10 {
		o = append(o, rotated(i, 10, 2))
	}
	return append(o, [3]int{-1, 31, 30})
}

func sha512Order() [][3]int {
	var o [][3]int
	for i := range 21 {
		o = append(o, rotated(i, 21, 1))
	}
	return append(o, [3]int{-1, -1, 63})
}

// rotated takes one byte of each third of a digest, beginning with a third that
// moves on by step.
func rotated(i, third, step int) [3]int {
	var o [3]int
	for j := range 3 {
		o[j] = (j+i*step)%3*third + i
	}
	return o
}
