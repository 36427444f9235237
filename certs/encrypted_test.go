package certs

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestEncryptedKeys reads keys that the openssl command has encrypted.
func TestEncryptedKeys(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	rs, ec := makePair(t, "rsa", rsaKey()), makePair(t, "ec", ecdsaKey(t))
	place(t, dir, "rsa.crt", rs.cert)
	place(t, dir, "rsa.key", rs.key)
	place(t, dir, "ec.crt", ec.cert)
	place(t, dir, "ec.key", ec.key)
	pkcs8 := "pkcs8 -topk8 "
	for _, tt := range []struct{ kind, command string }{
		{"rsa", pkcs8 + "-v2 aes-256-cbc -iter 10"},
		{"rsa", pkcs8 + "-v2 aes128 -iter 10 -v2prf hmacWithSHA512"},
		{"ec", pkcs8 + "-v2 aes-192-cbc -iter 10 -v2prf hmacWithSHA1"},
		{"ec", pkcs8 + "-v2 des3 -iter 10 -v2prf hmacWithSHA224"},
		{"ec", pkcs8 + "-v2 aes256 -iter 10 -v2prf hmacWithSHA384"},
		{"ec", pkcs8 + "-scrypt -scrypt_N 1024 -scrypt_r 8 -scrypt_p 1"},
		{"ec", pkcs8 + "-v1 PBE-SHA1-3DES -iter 10"},
		{"rsa", "rsa -aes128 -traditional"},
		{"rsa", "rsa -des3 -traditional"},
		{"ec", "ec -aes256"},
	} {
		t.Run(tt.command, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "key")
			args := append(strings.Fields(tt.command), "-in", filepath.Join(dir, tt.kind+".key"), "-out", out, "-passout", "pass:sesame öffne")
			if strings.HasPrefix(tt.command, "rsa") || strings.HasPrefix(tt.command, "ec") {
				args = append(args, "-passin", "pass:")
			}
			if text, err := exec.Command("openssl", args...).CombinedOutput(); err != nil {
				t.Skipf("%v: %s", err, text)
			}
			p := Pair{Cert: filepath.Join(dir, tt.kind+".crt"), Key: out}
			for _, try := range []struct{ passwords, want string }{
				{"-", "bad password read"},
				{"wrong\n", "bad decrypt"},
				{"", "bad decrypt"},
				{"sesame öffne", ""},
				{"wrong\r\n\r\nsesame öffne\r\nmore\n", ""},
			} {
				p.PasswordFile = "data:" + try.passwords
				if try.passwords == "-" {
					p.PasswordFile = ""
				}
				cert, err := loadPair(p, false)
				switch {
				case try.want == "" && (err != nil || cert == nil):
					t.Errorf("%q: %v", try.passwords, err)
				case try.want != "" && (err == nil || !strings.Contains(err.Error(), try.want)):
					t.Errorf("%q: %v", try.passwords, err)
				}
			}
		})
	}
}

// TestPasswordFile reads passwords a line each.
func TestPasswordFile(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct {
		text string
		want []string
		err  string
	}{
		{"a\nb\n", []string{"a", "b"}, ""},
		{"a\r\n\r\nb", []string{"a", "b"}, ""},
		{" a \n", []string{" a "}, ""},
		{"", []string{""}, ""},
		{"\n\n", []string{""}, ""},
		{strings.Repeat("x", maxPasswordLine), nil, "too long line in "},
	} {
		for _, name := range []string{place(t, dir, "passwords", tt.text), "data:" + tt.text} {
			got, err := readPasswords(name)
			var text []string
			for _, p := range got {
				text = append(text, string(p))
			}
			if strings.Join(text, "|") != strings.Join(tt.want, "|") || len(text) != len(tt.want) || (err == nil) != (tt.err == "") {
				t.Errorf("%q: %q, %v", tt.text, text, err)
			}
		}
	}
	_, err := readPasswords(filepath.Join(dir, "none"))
	if want := `open() "` + dir + `/none" failed (2: No such file or directory)`; err == nil || err.Error() != want {
		t.Error(err)
	}
	_ = os.Remove(filepath.Join(dir, "passwords"))
}

// TestEncryptionBounds refuses work without end.
func TestEncryptionBounds(t *testing.T) {
	oid := func(text string) asn1.ObjectIdentifier {
		var id asn1.ObjectIdentifier
		for part := range strings.SplitSeq(text, ".") {
			n := 0
			for _, c := range part {
				n = n*10 + int(c-'0')
			}
			id = append(id, n)
		}
		return id
	}
	identifier := func(id string, parameters any) pkix.AlgorithmIdentifier {
		der, err := asn1.Marshal(parameters)
		if err != nil {
			t.Fatal(err)
		}
		return pkix.AlgorithmIdentifier{Algorithm: oid(id), Parameters: asn1.RawValue{FullBytes: der}}
	}
	iv := make([]byte, 16)
	aes := identifier(oidAES128CBC, iv)
	wrap := func(a pkix.AlgorithmIdentifier, data []byte) []byte {
		der, err := asn1.Marshal(encryptedKey{a, data})
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	kdf := func(k pkix.AlgorithmIdentifier) []byte { return wrap(identifier(oidPBES2, pbes2{k, aes}), iv) }
	salt := []byte("salt")
	for name, der := range map[string][]byte{
		"garbage":               []byte("garbage"),
		"unknown scheme":        wrap(identifier("1.2.3", 1), iv),
		"years of iterations":   kdf(identifier(oidPBKDF2, pbkdf2Params{Salt: salt, Iterations: 1 << 30})),
		"no iterations":         kdf(identifier(oidPBKDF2, pbkdf2Params{Salt: salt})),
		"much salt":             kdf(identifier(oidPBKDF2, pbkdf2Params{Salt: make([]byte, 1<<20), Iterations: 1})),
		"gigabytes":             kdf(identifier(oidScrypt, scryptParams{Salt: salt, N: 1 << 30, R: 8, P: 1})),
		"gigabytes by width":    kdf(identifier(oidScrypt, scryptParams{Salt: salt, N: 2, R: 1 << 30, P: 1})),
		"much in parallel":      kdf(identifier(oidScrypt, scryptParams{Salt: salt, N: 2, R: 1, P: 1 << 30})),
		"negative":              kdf(identifier(oidScrypt, scryptParams{Salt: salt, N: -2, R: 1, P: 1})),
		"unknown derivation":    kdf(identifier("1.2.3", 1)),
		"unknown cipher":        wrap(identifier(oidPBES2, pbes2{identifier(oidPBKDF2, pbkdf2Params{Salt: salt, Iterations: 1}), identifier("1.2.3", iv)}), iv),
		"a short vector":        wrap(identifier(oidPBES2, pbes2{identifier(oidPBKDF2, pbkdf2Params{Salt: salt, Iterations: 1}), identifier(oidAES128CBC, iv[:8])}), iv),
		"half a block":          wrap(identifier(oidPBES2, pbes2{identifier(oidPBKDF2, pbkdf2Params{Salt: salt, Iterations: 1}), aes}), iv[:9]),
		"no data":               wrap(identifier(oidPBES2, pbes2{identifier(oidPBKDF2, pbkdf2Params{Salt: salt, Iterations: 1}), aes}), nil),
		"PKCS#12, iterations":   wrap(identifier(oidSHA1And3, pbeParams{Salt: salt, Iterations: 1 << 30}), iv),
		"PKCS#12, no salt":      wrap(identifier(oidSHA1And3, pbeParams{Iterations: 1}), iv[:9]),
		"PKCS#12, not a triple": wrap(identifier(oidSHA1And3, 1), iv),
	} {
		if _, err := decryptPKCS8(der, []byte("x")); !errors.Is(err, errAlgorithm) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := decryptBlock(pemBlock{label: "RSA PRIVATE KEY", header: "Proc-Type: 4,ENCRYPTED\n"}, nil); !errors.Is(err, errAlgorithm) {
		t.Error(err)
	}
	if _, err := decryptBlock(pemBlock{label: "RSA PRIVATE KEY", header: "DEK-Info: XOR,00\n", der: iv}, nil); !errors.Is(err, errAlgorithm) {
		t.Error(err)
	}
}
