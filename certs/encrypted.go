package certs

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"hash"
	"io"
	"strings"
	"unicode/utf16"

	"golang.org/x/crypto/scrypt"
)

// Private keys that are encrypted: PKCS#8 (RFC 5958 with PBES2 of RFC 8018,
// scrypt of RFC 7914, and the Triple DES scheme of PKCS#12, RFC 7292), and the
// older encryption of whole PEM blocks (RFC 1421 headers).

// Bounds for parameters that a file brings along: an iteration count of years
// or a scrypt table of gigabytes is not worked through. The memory is the bound
// that OpenSSL has.
const (
	maxIterations   = 10_000_000
	maxScryptMemory = 32 << 20
	maxSalt         = 1 << 10
)

var (
	errPassword  = errors.New("wrong password")
	errAlgorithm = errors.New("unsupported encryption")
)

// The object identifiers of what OpenSSL writes.
const (
	oidPBES2      = "1.2.840.113549.1.5.13"
	oidPBKDF2     = "1.2.840.113549.1.5.12"
	oidScrypt     = "1.3.6.1.4.1.11591.4.11"
	oidSHA1And3   = "1.2.840.113549.1.12.1.3" // pbeWithSHAAnd3-KeyTripleDES-CBC
	oidHMACSHA1   = "1.2.840.113549.2.7"
	oidHMACSHA224 = "1.2.840.113549.2.8"
	oidHMACSHA256 = "1.2.840.113549.2.9"
	oidHMACSHA384 = "1.2.840.113549.2.10"
	oidHMACSHA512 = "1.2.840.113549.2.11"
	oidDESEDE3CBC = "1.2.840.113549.3.7"
	oidAES128CBC  = "2.16.840.1.101.3.4.1.2"
	oidAES192CBC  = "2.16.840.1.101.3.4.1.22"
	oidAES256CBC  = "2.16.840.1.101.3.4.1.42"
)

type encryptedKey struct {
	Algorithm pkix.AlgorithmIdentifier
	Data      []byte
}

type pbes2 struct {
	KDF    pkix.AlgorithmIdentifier
	Cipher pkix.AlgorithmIdentifier
}

type pbkdf2Params struct {
	Salt       []byte
	Iterations int
	KeyLength  int                      `asn1:"optional"`
	PRF        pkix.AlgorithmIdentifier `asn1:"optional"`
}

type scryptParams struct {
	Salt      []byte
	N, R, P   int
	KeyLength int `asn1:"optional"`
}

type pbeParams struct {
	Salt       []byte
	Iterations int
}

// decryptPKCS8 gives the PrivateKeyInfo in an EncryptedPrivateKeyInfo.
// errPassword is a password that does not fit, errAlgorithm a scheme that is
// not known or out of bounds.
func decryptPKCS8(der, password []byte) ([]byte, error) {
	var info encryptedKey
	if _, err := asn1.Unmarshal(der, &info); err != nil {
		return nil, errAlgorithm
	}
	var block cipher.Block
	var iv []byte
	var err error
	switch info.Algorithm.Algorithm.String() {
	case oidPBES2:
		block, iv, err = openPBES2(info.Algorithm.Parameters.FullBytes, password)
	case oidSHA1And3:
		block, iv, err = openPKCS12(info.Algorithm.Parameters.FullBytes, password)
	default:
		err = errAlgorithm
	}
	if err != nil {
		return nil, err
	}
	return decryptCBC(block, iv, info.Data)
}

func openPBES2(der, password []byte) (cipher.Block, []byte, error) {
	var p pbes2
	var iv []byte
	if _, err := asn1.Unmarshal(der, &p); err != nil {
		return nil, nil, errAlgorithm
	}
	if _, err := asn1.Unmarshal(p.Cipher.Parameters.FullBytes, &iv); err != nil {
		return nil, nil, errAlgorithm
	}
	size, open := 0, aes.NewCipher
	switch p.Cipher.Algorithm.String() {
	case oidAES128CBC:
		size = 16
	case oidAES192CBC:
		size = 24
	case oidAES256CBC:
		size = 32
	case oidDESEDE3CBC:
		size, open = 24, des.NewTripleDESCipher
	default:
		return nil, nil, errAlgorithm
	}
	key, err := deriveKey(p.KDF, password, size)
	if err != nil {
		return nil, nil, err
	}
	block, err := open(key)
	return block, iv, err
}

// deriveKey makes the key of a password.
func deriveKey(kdf pkix.AlgorithmIdentifier, password []byte, size int) ([]byte, error) {
	switch kdf.Algorithm.String() {
	case oidPBKDF2:
		var p pbkdf2Params
		if _, err := asn1.Unmarshal(kdf.Parameters.FullBytes, &p); err != nil {
			return nil, errAlgorithm
		}
		h := prf(p.PRF.Algorithm.String())
		if h == nil || p.Iterations < 1 || p.Iterations > maxIterations || len(p.Salt) > maxSalt {
			return nil, errAlgorithm
		}
		return pbkdf2.Key(h, string(password), p.Salt, p.Iterations, size)
	case oidScrypt:
		var p scryptParams
		if _, err := asn1.Unmarshal(kdf.Parameters.FullBytes, &p); err != nil {
			return nil, errAlgorithm
		}
		if p.N < 2 || p.R < 1 || p.P < 1 || p.R > maxScryptMemory || p.P > 64 || p.N > maxScryptMemory/128/p.R || len(p.Salt) > maxSalt {
			return nil, errAlgorithm
		}
		return scrypt.Key(password, p.Salt, p.N, p.R, p.P, size)
	}
	return nil, errAlgorithm
}

// prf is the hash of PBKDF2's function; without a name it is SHA-1 (RFC 8018,
// appendix A.2).
func prf(oid string) func() hash.Hash {
	switch oid {
	case oidHMACSHA1, "":
		return sha1.New
	case oidHMACSHA224:
		return sha256.New224
	case oidHMACSHA256:
		return sha256.New
	case oidHMACSHA384:
		return sha512.New384
	case oidHMACSHA512:
		return sha512.New
	}
	return nil
}

// openPKCS12 is RFC 7292, appendix B, with SHA-1 and Triple DES.
func openPKCS12(der, password []byte) (cipher.Block, []byte, error) {
	var p pbeParams
	if _, err := asn1.Unmarshal(der, &p); err != nil {
		return nil, nil, errAlgorithm
	}
	if p.Iterations < 1 || p.Iterations > maxIterations || len(p.Salt) > maxSalt {
		return nil, nil, errAlgorithm
	}
	var wide []byte // UTF-16 in network order, with a NUL at the end
	for _, u := range append(utf16.Encode([]rune(string(password))), 0) {
		wide = append(wide, byte(u>>8), byte(u))
	}
	block, err := des.NewTripleDESCipher(pkcs12Key(1, wide, p, 24))
	return block, pkcs12Key(2, wide, p, 8), err
}

// pkcs12Key derives bytes for a purpose: 1 the key, 2 the vector.
func pkcs12Key(purpose byte, password []byte, p pbeParams, size int) []byte {
	const width = 64 // of SHA-1's blocks
	text := append(repeat(p.Salt, width), repeat(password, width)...)
	var out []byte
	for {
		sum := sha1.Sum(append(bytes.Repeat([]byte{purpose}, width), text...))
		for range p.Iterations - 1 {
			sum = sha1.Sum(sum[:])
		}
		out = append(out, sum[:]...)
		if len(out) >= size {
			return out[:size]
		}
		add := repeat(sum[:], width)[:width]
		for i := 0; i < len(text); i += width {
			carry := 1
			for j := width - 1; j >= 0; j-- {
				carry += int(text[i+j]) + int(add[j])
				text[i+j] = byte(carry)
				carry >>= 8
			}
		}
	}
}

// repeat fills whole blocks with b over and over; of nothing it makes nothing.
func repeat(b []byte, width int) []byte {
	if len(b) == 0 {
		return nil
	}
	size := (len(b) + width - 1) / width * width
	return bytes.Repeat(b, size/len(b)+1)[:size]
}

// decryptCBC also takes the padding off; a wrong password mostly shows there.
func decryptCBC(block cipher.Block, iv, data []byte) ([]byte, error) {
	size := block.BlockSize()
	if len(iv) != size || len(data) == 0 || len(data)%size != 0 {
		return nil, errAlgorithm
	}
	out := make([]byte, len(data))
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(out, data)
	pad := int(out[len(out)-1])
	if pad == 0 || pad > size || !bytes.HasSuffix(out, bytes.Repeat([]byte{byte(pad)}, pad)) {
		return nil, errPassword
	}
	return out[:len(out)-pad], nil
}

// decryptBlock takes the encryption off a block with "Proc-Type: 4,ENCRYPTED".
func decryptBlock(b pemBlock, password []byte) ([]byte, error) {
	_, info, found := strings.Cut(b.header, "DEK-Info:")
	if !found {
		return nil, errAlgorithm
	}
	info, _, _ = strings.Cut(info, "\n")
	block := &pem.Block{Type: b.label, Headers: map[string]string{"DEK-Info": strings.TrimSpace(info)}, Bytes: b.der}
	der, err := x509.DecryptPEMBlock(block, password) //nolint:staticcheck // nginx reads keys that are stored so
	if errors.Is(err, x509.IncorrectPasswordError) {
		return nil, errPassword
	}
	if err != nil {
		return nil, errAlgorithm
	}
	return der, nil
}

// maxPasswordLine is nginx's NGX_SSL_PASSWORD_BUFFER_SIZE.
const maxPasswordLine = 4096

// readPasswords reads ssl_password_file: one a line, each is tried in turn; a
// file of empty lines holds one empty password (ngx_ssl_read_password_file).
func readPasswords(path string) ([][]byte, error) {
	text, err := readPasswordFile(path)
	if err != nil {
		return nil, err
	}
	var out [][]byte
	for line := range bytes.SplitSeq(text, []byte{'\n'}) {
		if len(line) >= maxPasswordLine {
			return nil, &loadError{path: path, text: "too long line in " + quote(path)}
		}
		if line = bytes.TrimSuffix(line, []byte{'\r'}); len(line) > 0 {
			out = append(out, line)
		}
	}
	if out == nil {
		out = [][]byte{nil}
	}
	return out, nil
}

func readPasswordFile(path string) ([]byte, error) {
	if text, inline := strings.CutPrefix(path, "data:"); inline { // of a pipe, which can be read only once
		return []byte(text), nil
	}
	f, err := openFile(path)
	if err != nil {
		return nil, &loadError{path: path, text: "open() " + quote(path) + " failed (" + systemError(err) + ")", missing: absent(err)}
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return nil, &loadError{path: path, text: "read() " + quote(path) + " failed (" + systemError(err) + ")"}
	}
	return text, nil
}
