package proxy

import (
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Ciphers and groups under OpenSSL's names (ssl/ssl_ciph.c, ssl/t1_lib.c).

// defaultCiphers is nginx's ssl_ciphers.
const defaultCiphers = "HIGH:!aNULL:!MD5"

// cipher is one that OpenSSL knows.
type cipher struct {
	id                                       uint16
	name, version, kx, auth, enc, mac, flags string
	bits                                     string
}

// opensslTable reads the table. It is done while loading and once for the
// variables.
func opensslTable() []cipher {
	var out []cipher
	for line := range strings.Lines(opensslCiphers) {
		f := strings.Fields(line)
		if len(f) != 9 {
			continue
		}
		id, _ := strconv.ParseUint(f[0], 16, 16)
		out = append(out, cipher{uint16(id), f[1], f[2], f[3], f[4], f[5], f[7], f[8], f[6]})
	}
	return out
}

// has says whether a word of a cipher string selects the cipher, and whether the
// word is known at all.
func (c *cipher) has(word string) (selected, known bool) {
	switch word {
	case "ALL":
		return c.enc != "None", true
	case "COMPLEMENTOFALL", "eNULL", "NULL":
		return c.enc == "None", true
	case "COMPLEMENTOFDEFAULT":
		return c.enc != "None" && !strings.Contains(c.flags, "D"), true
	case "HIGH":
		return c.enc != "None", true
	case "FIPS":
		return strings.Contains(c.flags, "F"), true
	case "LOW", "MEDIUM", "EXP", "EXPORT", "EXPORT40", "EXPORT56", "RC4", "RC2", "DES", "3DES", "IDEA", "SEED", "GOST", "kGOST", "aGOST", "GOST89", "GOST94",
		"KRB5", "kKRB5", "aKRB5", "kDHr", "kDHd", "kDH", "aDH", "kECDHr", "kECDHe", "kECDH", "aECDH", "kFZA", "aFZA", "eFZA", "FZA":
		return false, true // gone from OpenSSL, or never built in
	case "SSLv3", "TLSv1.2":
		return c.version == word, true
	case "TLSv1", "TLSv1.0":
		return c.version == "TLSv1", true
	}
	if selected, known = c.hasKeys(word); known {
		return selected, true
	}
	return c.hasEncryption(word)
}

// hasKeys looks at the exchange of keys and at authentication.
func (c *cipher) hasKeys(word string) (selected, known bool) {
	switch word {
	case "kRSA", "RSA":
		return c.kx == "RSA", true
	case "kEDH", "kDHE", "DH":
		return c.kx == "DH", true
	case "EDH", "DHE":
		return c.kx == "DH" && c.auth != "None", true
	case "kEECDH", "kECDHE", "ECDH":
		return c.kx == "ECDH", true
	case "EECDH", "ECDHE":
		return c.kx == "ECDH" && c.auth != "None", true
	case "ADH":
		return c.kx == "DH" && c.auth == "None", true
	case "AECDH":
		return c.kx == "ECDH" && c.auth == "None", true
	case "kPSK", "kRSAPSK", "kDHEPSK", "kECDHEPSK":
		return "k"+c.kx == word, true
	case "PSK":
		return strings.HasSuffix(c.kx, "PSK"), true
	case "kSRP", "SRP":
		return c.kx == "SRP", true
	case "aNULL":
		return c.auth == "None", true
	case "aRSA":
		return c.auth == "RSA", true
	case "aDSS", "DSS":
		return c.auth == "DSS", true
	case "aECDSA", "ECDSA":
		return c.auth == "ECDSA", true
	case "aPSK":
		return c.auth == "PSK", true
	case "aSRP":
		return c.auth == "SRP", true
	}
	return false, false
}

// hasEncryption looks at encryption and authentication of messages.
func (c *cipher) hasEncryption(word string) (selected, known bool) {
	aes := strings.HasPrefix(c.enc, "AES")
	switch word {
	case "AES":
		return aes, true
	case "AES128", "AES256":
		return aes && "AES"+c.bits == word, true
	case "AESGCM", "AESCCM8", "CHACHA20", "CAMELLIA":
		return c.enc == word, true
	case "AESCCM":
		return c.enc == "AESCCM" || c.enc == "AESCCM8", true
	case "ARIA", "ARIAGCM":
		return c.enc == "ARIAGCM", true
	case "CAMELLIA128", "CAMELLIA256", "ARIA128", "ARIA256":
		return strings.TrimSuffix(c.enc, "GCM")+c.bits == word, true
	case "CBC":
		return c.enc == "AES" || c.enc == "CAMELLIA", true
	case "MD5", "SHA256", "SHA384":
		return c.mac == word, true
	case "SHA", "SHA1":
		return c.mac == "SHA1", true
	}
	return false, false
}

// cipherList reads a cipher string (ssl_create_cipher_list). The ciphers come in
// the order of preference. The error is the reason that OpenSSL gives.
func cipherList(text string) ([]cipher, error) {
	table := opensslTable()
	list := &cipherOrder{all: table, out: make([]int, len(table))}
	for i := range table {
		list.out[i] = i
	}
	for i, alias := range []string{"DEFAULT", "SUITEB128ONLY", "SUITEB128C2", "SUITEB128", "SUITEB192"} {
		rest, found := strings.CutPrefix(text, alias)
		if !found || i > 0 && rest != "" {
			continue
		}
		text = [...]string{
			"ALL:!COMPLEMENTOFDEFAULT:!eNULL:" + strings.TrimPrefix(rest, ":"),
			"ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384",
			"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES256-GCM-SHA384",
		}[i]
		break
	}
	for rule := range strings.FieldsFuncSeq(text, func(r rune) bool { return strings.ContainsRune(": ,;", r) }) {
		if err := list.apply(rule); err != nil {
			return nil, err
		}
	}
	if len(list.in) == 0 {
		return nil, errors.New("SSL: error:0A0000B9:SSL routines::no cipher match")
	}
	out := make([]cipher, len(list.in))
	for i, at := range list.in {
		out[i] = table[at]
	}
	return out, nil
}

// cipherOrder is a string being read: the ciphers that are in, by preference, and
// those that are out, in the order in which they would come in. Those that have
// been killed are in neither.
type cipherOrder struct {
	all     []cipher
	in, out []int
}

var errCipherCommand = errors.New("SSL: error:0A000118:SSL routines::invalid command")

// apply reads one element: a name or words joined by "+", after "!", "-", "+" or
// nothing; or a command after "@".
func (o *cipherOrder) apply(rule string) error {
	op := byte(0)
	switch rule[0] {
	case '!', '-', '+':
		op, rule = rule[0], rule[1:]
	case '@':
		level, is := strings.CutPrefix(rule, "@SECLEVEL=")
		switch {
		case rule == "@STRENGTH":
			slices.SortStableFunc(o.in, func(a, b int) int { return o.all[b].strength() - o.all[a].strength() })
			return nil
		case is && len(level) == 1 && level[0] >= '0' && level[0] <= '5':
			return nil
		}
		return errCipherCommand
	}
	words := strings.Split(rule, "+")
	for _, w := range words {
		if strings.IndexFunc(w, func(r rune) bool { return !strings.ContainsRune("-_.=", r) && !isAlphanumeric(r) }) >= 0 || w == "" {
			return errCipherCommand
		}
	}
	switch op {
	case 0:
		chosen, rest := o.split(o.out, words)
		o.in, o.out = append(o.in, chosen...), rest
	case '+':
		chosen, rest := o.split(o.in, words)
		o.in = append(rest, chosen...)
	case '-':
		chosen, rest := o.split(o.in, words)
		o.in, o.out = rest, append(chosen, o.out...)
	case '!':
		_, o.in = o.split(o.in, words)
		_, o.out = o.split(o.out, words)
	}
	return nil
}

// split separates the ciphers that all words select from the rest.
func (o *cipherOrder) split(list []int, words []string) (chosen, rest []int) {
	for _, i := range list {
		if o.all[i].hasAll(words) {
			chosen = append(chosen, i)
		} else {
			rest = append(rest, i)
		}
	}
	return chosen, rest
}

func (c *cipher) strength() int {
	n, _ := strconv.Atoi(c.bits)
	return n
}

// lowSecurityLevel says whether a cipher string lowers OpenSSL's minimum of
// strength for certificates: "@SECLEVEL=0" or 1.
func lowSecurityLevel(text string) bool {
	i := strings.LastIndex(text, "@SECLEVEL=")
	return i >= 0 && (strings.HasPrefix(text[i:], "@SECLEVEL=0") || strings.HasPrefix(text[i:], "@SECLEVEL=1"))
}

func isAlphanumeric(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
}

func (c *cipher) hasAll(words []string) bool {
	for _, w := range words {
		if w == c.name {
			continue
		}
		if selected, _ := c.has(w); !selected {
			return false
		}
	}
	return true
}

// suite is a cipher suite that Go's TLS library has, up to TLS 1.2.
type suite struct {
	id           uint16
	ecdsa, ecdhe bool
	modern       bool // TLS 1.2 only
}

// servedSuites gives the suites of a cipher string that Go's TLS library has, in
// the order of preference. Those of TLS 1.3 are always on, as in nginx.
//
// Unlike nginx, suites with CBC and SHA-256 are not served: their implementation
// in Go does not run in constant time. Every client that knows them knows others
// of the same age.
func servedSuites(text string, versions uint32) ([]suite, error) {
	list, err := cipherList(text)
	if err != nil {
		return nil, fmt.Errorf("SSL_CTX_set_cipher_list(%q) failed (%w)", text, err)
	}
	served := map[uint16]bool{}
	for _, s := range slices.Concat(tls.CipherSuites(), tls.InsecureCipherSuites()) {
		served[s.ID] = true
	}
	suites := []suite{}
	for i := range list {
		if c := &list[i]; served[c.id] && (c.enc != "AES" || c.mac != "SHA256") {
			suites = append(suites, suite{c.id, c.auth == "ECDSA", c.kx == "ECDH", c.version == "TLSv1.2"})
		}
	}
	if len(suites) == 0 && versions&protocolTLS13 == 0 {
		return nil, fmt.Errorf("none of the ciphers %q is served by proxyctl; add one with ECDHE and GCM, or TLSv1.3 to \"ssl_protocols\"", text)
	}
	return suites, nil
}

// cipherSuites gives their numbers.
func cipherSuites(text string, versions uint32) ([]uint16, error) {
	suites, err := servedSuites(text, versions)
	ids := make([]uint16, len(suites))
	for i, s := range suites {
		ids[i] = s.id
	}
	return ids, err
}

// cipherNames gives OpenSSL's names by number, for variables.
var cipherNames = func() map[uint16]string {
	names := map[uint16]string{
		tls.TLS_AES_128_GCM_SHA256: "TLS_AES_128_GCM_SHA256", tls.TLS_AES_256_GCM_SHA384: "TLS_AES_256_GCM_SHA384",
		tls.TLS_CHACHA20_POLY1305_SHA256: "TLS_CHACHA20_POLY1305_SHA256", 0x1304: "TLS_AES_128_CCM_SHA256", 0x1305: "TLS_AES_128_CCM_8_SHA256",
		0x00FF: "TLS_EMPTY_RENEGOTIATION_INFO_SCSV", 0x5600: "TLS_FALLBACK_SCSV",
	}
	for _, c := range opensslTable() {
		names[c.id] = c.name
	}
	return names
}()

// groupNames are the groups for the exchange of keys, by number, as $ssl_curve
// shows them.
var groupNames = map[tls.CurveID]string{
	19: "prime192v1", 21: "secp224r1", 22: "secp256k1", tls.CurveP256: "prime256v1", tls.CurveP384: "secp384r1", tls.CurveP521: "secp521r1",
	26: "brainpoolP256r1", 27: "brainpoolP384r1", 28: "brainpoolP512r1", tls.X25519: "X25519", 30: "X448",
	256: "ffdhe2048", 257: "ffdhe3072", 258: "ffdhe4096", 259: "ffdhe6144", 260: "ffdhe8192",
	tls.SecP256r1MLKEM768: "SecP256r1MLKEM768", tls.X25519MLKEM768: "X25519MLKEM768", tls.SecP384r1MLKEM1024: "SecP384r1MLKEM1024",
}

// curves reads ssl_ecdh_curve: names separated by ":", of which those count that
// Go's TLS library has. nil is its own choice.
func curves(text string) ([]tls.CurveID, error) {
	if text == "auto" {
		return nil, nil
	}
	var out []tls.CurveID
	seen := map[tls.CurveID]bool{}
	for name := range strings.SplitSeq(text, ":") {
		name, optional := strings.CutPrefix(strings.TrimPrefix(name, "*"), "?")
		id := groupID(name)
		switch {
		case id == 0 && optional:
			continue
		case id == 0:
			return nil, fmt.Errorf("SSL_CTX_set1_curves_list(%q) failed (SSL: error:0A080106:SSL routines::passed invalid argument:group '%s' cannot be set)", text, name)
		case seen[id]:
			return nil, fmt.Errorf("SSL_CTX_set1_curves_list(%q) failed", text)
		}
		seen[id] = true
		switch id {
		case tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521, tls.X25519MLKEM768, tls.SecP256r1MLKEM768, tls.SecP384r1MLKEM1024:
			out = append(out, id)
		}
	}
	if out == nil {
		return nil, fmt.Errorf("none of the curves %q is served by proxyctl; X25519, prime256v1, secp384r1 and secp521r1 are", text)
	}
	return out, nil
}

// groupID finds a group by any of its names.
func groupID(name string) tls.CurveID {
	switch strings.ToUpper(name) {
	case "P-192", "SECP192R1":
		return 19
	case "P-224":
		return 21
	case "P-256", "SECP256R1":
		return tls.CurveP256
	case "P-384":
		return tls.CurveP384
	case "P-521":
		return tls.CurveP521
	}
	for id, n := range groupNames {
		if strings.EqualFold(n, name) {
			return id
		}
	}
	return 0
}
