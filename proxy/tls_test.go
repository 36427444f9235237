package proxy

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"
)

// testCA issues certificates into a folder: NAME.crt and NAME.key.
type testCA struct {
	t    testing.TB
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	last int64
}

func newTestCA(t testing.TB, dir, name string) *testCA {
	t.Helper()
	ca := &testCA{t: t, dir: dir}
	template := &x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}
	ca.cert, ca.key = ca.sign(name, template)
	return ca
}

// issue makes a certificate for a name; change may alter it.
func (ca *testCA) issue(name string, change ...func(*x509.Certificate)) tls.Certificate {
	ca.t.Helper()
	template := &x509.Certificate{Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}}
	for _, f := range change {
		f(template)
	}
	cert, key := ca.sign(name, template)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}
}

func (ca *testCA) sign(name string, template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	ca.t.Helper()
	ca.last++
	template.SerialNumber = big.NewInt(ca.last)
	template.BasicConstraintsValid = true
	template.NotBefore = time.Now().Add(-time.Hour)
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(50 * time.Hour)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		ca.t.Fatal(err)
	}
	parent, by := ca.cert, ca.key
	if parent == nil {
		parent, by = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, by)
	if err != nil {
		ca.t.Fatal(err)
	}
	cert, _ := x509.ParseCertificate(der)
	secret, _ := x509.MarshalPKCS8PrivateKey(key)
	ca.write(name+".crt", "CERTIFICATE", der)
	ca.write(name+".key", "PRIVATE KEY", secret)
	return cert, key
}

func (ca *testCA) write(name, kind string, der []byte) {
	ca.t.Helper()
	if err := os.WriteFile(filepath.Join(ca.dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		ca.t.Fatal(err)
	}
}

// prepareTLS is prepare with certificates read as they are, and an authority.
func prepareTLS(t testing.TB) (*running, *testCA) {
	t.Helper()
	r := prepare(t)
	sites := map[string]CertSite{}
	r.opts.UpdateCertificates = func(all []CertSite, _ ChallengePorts) {
		for _, s := range all {
			sites[s.ID] = s
		}
	}
	r.opts.LoadCertificate = func(p CertPair, _ bool) (*tls.Certificate, error) {
		cert, err := tls.LoadX509KeyPair(p.Certificate, p.Key)
		return &cert, err
	}
	read := map[string]*tls.Certificate{}
	r.opts.Certificate = func(id string, _ *tls.ClientHelloInfo) (*tls.Certificate, error) {
		pair := sites[id].Pairs[0]
		if read[pair.Certificate] == nil {
			cert, err := r.opts.LoadCertificate(pair, false)
			if err != nil {
				return nil, err
			}
			read[pair.Certificate] = cert
		}
		return read[pair.Certificate], nil
	}
	return r, newTestCA(t, r.dir, "ca")
}

func (r *running) serve(conf string) {
	r.t.Helper()
	if err := r.Start(r.load(conf)); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(r.Stop)
}

// getTLS asks for a path under a Host. The state is that of the connection.
func (r *running) getTLS(socket, host, path string, config *tls.Config) (string, tls.ConnectionState, error) {
	r.t.Helper()
	config = config.Clone()
	config.InsecureSkipVerify = true
	nc := r.dial(socket)
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(5 * time.Second))
	c := tls.Client(nc, config)
	if err := c.Handshake(); err != nil {
		return "", tls.ConnectionState{}, err
	}
	if _, err := io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n"); err != nil {
		return "", tls.ConnectionState{}, err
	}
	b, err := io.ReadAll(c)
	return string(b), c.ConnectionState(), err
}

const tlsServers = `
daemon off; events {}
http {
	ssl_certificate a.test.crt; ssl_certificate_key a.test.key;
	error_log logs/error.log info;
	add_header X-Verify $ssl_client_verify always;
	server { listen unix:%dir%/tls ssl; server_name a.test; return 200 "a $ssl_server_name $ssl_protocol"; }
	server { listen unix:%dir%/tls ssl; server_name b.test; ssl_verify_client on; ssl_client_certificate ca.crt; return 200 "b $ssl_client_s_dn"; }
	server { listen unix:%dir%/tls ssl; server_name c.test; ssl_verify_client optional_no_ca; return 200 "c"; }
	server { listen unix:%dir%/tls ssl; server_name no.test; ssl_reject_handshake on; }
}`

// TestTLSRequests holds what is asked of clients and what they are told.
func TestTLSRequests(t *testing.T) {
	r, ca := prepareTLS(t)
	ca.issue("a.test")
	good := ca.issue("client")
	late := ca.issue("late", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	other := newTestCA(t, t.TempDir(), "other")
	foreign := other.issue("client")
	r.serve(tlsServers)
	tests := []struct {
		name, sni, host string
		cert            *tls.Certificate
		want            string // of the answer, or of the error
		log             string
	}{
		{"default server", "", "a.test", nil, "a  TLSv1.3", ""},
		{"name", "a.test", "a.test", nil, "a a.test TLSv1.3", ""},
		{"name without a server", "x.test", "x.test", nil, "a x.test TLSv1.3", ""},
		{"no certificate", "b.test", "b.test", nil, "400 No required SSL certificate was sent", "client sent no required SSL certificate while reading client request headers"},
		{"good certificate", "b.test", "b.test", &good, "X-Verify: SUCCESS\r\n*b CN=client", ""},
		{"expired", "b.test", "b.test", &late, "400 The SSL certificate error", "client SSL certificate verify error: (10:certificate has expired)"},
		{"of another authority", "b.test", "b.test", &foreign, "X-Verify: FAILED:unable to verify the first certificate\r\n*400 The SSL certificate error", "client SSL certificate verify error: (21:unable to verify the first certificate)"},
		{"of any authority", "c.test", "c.test", &foreign, "X-Verify: FAILED:unable to verify the first certificate\r\n*c", ""},
		{"optional", "c.test", "c.test", nil, "X-Verify: NONE\r\n*c", ""},
		{"other host that verifies", "a.test", "b.test", nil, "421 Misdirected Request", "client attempted to request the server name different from the one that was negotiated"},
		{"refused", "no.test", "no.test", nil, "unrecognized name", "handshake rejected while SSL handshaking, client: unix:, server: unix:"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			config := &tls.Config{ServerName: tt.sni}
			if tt.cert != nil {
				config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return tt.cert, nil }
			}
			got, _, err := r.getTLS("tls", tt.host, "/", config)
			if err != nil {
				got = err.Error()
			}
			for _, part := range strings.Split(tt.want, "*") {
				if !strings.Contains(got, part) {
					t.Errorf("no %q in %q", part, got)
				}
			}
			if tt.log != "" && !t.Failed() {
				r.await("logs/error.log", tt.log)
			}
		})
	}
	if got := r.get("tls", "/"); !strings.Contains(got, "400 The plain HTTP request was sent to HTTPS port") {
		t.Error(got)
	}
}

// TestTLSHandshakeLog holds the words for handshakes that fail.
func TestTLSHandshakeLog(t *testing.T) {
	r, ca := prepareTLS(t)
	ca.issue("a.test")
	r.serve(strings.NewReplacer("error_log", "ssl_protocols TLSv1.2; ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256; error_log",
		"\tserver { listen unix:%dir%/tls ssl; server_name a.test;", "server { listen unix:%dir%/tls13 ssl; ssl_protocols TLSv1.3; } server { listen unix:%dir%/tls ssl; server_name a.test;").Replace(tlsServers))
	for _, tt := range []struct {
		config *tls.Config
		log    string
	}{
		{&tls.Config{MinVersion: tls.VersionTLS13}, "[info] *SSL_do_handshake() failed (SSL: error:0A000102:SSL routines::unsupported protocol) while SSL handshaking"},
		{&tls.Config{CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384}}, "SSL_do_handshake() failed (SSL: error:0A0000C1:SSL routines::no shared cipher)"},
		{&tls.Config{NextProtos: []string{"spdy"}}, "SSL_do_handshake() failed (SSL: error:0A0000EB:SSL routines::no application protocol)"},
	} {
		if _, _, err := r.getTLS("tls", "a.test", "/", tt.config); err == nil {
			t.Error("no error for", tt.log)
		}
		for part := range strings.SplitSeq(tt.log, "*") {
			r.await("logs/error.log", part)
		}
	}
	if _, err := exec.LookPath("openssl"); err == nil { // its alert comes in the clear
		cmd := exec.Command("openssl", "s_client", "-unix", filepath.Join(r.dir, "tls13"), "-verify_return_error", "-CAfile", filepath.Join(r.dir, "a.test.crt"))
		_ = cmd.Run()
		r.await("logs/error.log", "SSL_do_handshake() failed (SSL: error:0A000418:SSL routines::tlsv1 alert unknown ca:SSL alert number 48) while SSL handshaking")
	}
	nc := r.dial("tls")
	_, _ = nc.Write([]byte{0x16, 3, 1, 0, 5})
	_ = nc.Close()
	r.await("logs/error.log", "peer closed connection in SSL handshake while SSL handshaking")
}

// TestTLSSessions resumes sessions, where that is allowed.
func TestTLSSessions(t *testing.T) {
	tests := []struct {
		directives string
		resumes    bool
	}{
		{"", true},
		{"ssl_session_tickets off;", false},
		{"ssl_session_tickets off; ssl_session_cache builtin;", true},
		{"ssl_session_tickets off; ssl_session_cache shared:S:1m;", true},
		{"ssl_session_tickets on; ssl_session_cache off;", true},
		{"ssl_session_ticket_key ticket.key;", true},
	}
	for _, tt := range tests {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(fmt.Sprintf("%s%x", tt.directives, version), func(t *testing.T) {
				t.Parallel()
				r, ca := prepareTLS(t)
				ca.issue("a.test")
				_ = os.WriteFile(filepath.Join(r.dir, "ticket.key"), bytes.Repeat([]byte("k"), 80), 0o600)
				conf := strings.Replace(tlsServers, "error_log", tt.directives+" error_log", 1)
				conf = strings.Replace(conf, `"a `, `"$ssl_session_reused$ssl_session_id `, 1)
				r.serve(conf)
				cache := tls.NewLRUClientSessionCache(8)
				resumed := func(sni string) bool {
					config := &tls.Config{ServerName: "session", MaxVersion: version, ClientSessionCache: cache}
					if sni != "" {
						config.ServerName = sni
					}
					_, state, err := r.getTLS("tls", "a.test", "/", config)
					if err != nil {
						t.Error(err)
					}
					return state.DidResume
				}
				if resumed("") || resumed("") != tt.resumes {
					t.Errorf("resumed: not %t", tt.resumes)
				}
				if err := r.Reload(r.load(conf)); err != nil {
					t.Fatal(err)
				}
				if resumed("") != tt.resumes {
					t.Errorf("after a reload: not %t", tt.resumes)
				}
				next := &Runtime{}
				next.RestoreSessions(r.Sessions())
				r.sessions.zones = next.sessions.zones
				if err := r.Reload(r.load(conf)); err != nil {
					t.Fatal(err)
				}
				if resumed("") != tt.resumes {
					t.Errorf("after a restart: not %t", tt.resumes)
				}
				// a server that asks for certificates resumes nobody else's sessions
				session, _ := cache.Get("session")
				cache.Put("c.test", session)
				if resumed("c.test") {
					t.Error("resumed with another server")
				}
			})
		}
	}
}

// TestSessionZone bounds what sessions take.
func TestSessionZone(t *testing.T) {
	zones := &sessionZones{}
	z := zones.zone("x", 3*sessionSize)
	in := time.Now().Add(time.Hour)
	for i := range byte(5) {
		z.store(sessionID{i}, []byte{i}, in)
	}
	z.store(sessionID{9}, nil, time.Now().Add(-time.Second))
	var kept []byte
	for i := range byte(10) {
		if s := z.load(sessionID{i}); s != nil {
			kept = append(kept, s...)
		}
	}
	if string(kept) != "\x03\x04" {
		t.Errorf("kept %v", kept)
	}
	z.forget(sessionID{3})
	if z.load(sessionID{3}) != nil || z.size != sessionSize {
		t.Error("not forgotten")
	}
	if zones.zone("x", 0); z.size != 0 || z.first != nil || z.last != nil || len(z.entries) != 0 {
		t.Error("not shrunk")
	}
}

// TestKeptSessions: what is written down is read whole, and nothing else is.
func TestKeptSessions(t *testing.T) {
	r := &Runtime{}
	if r.Sessions() != nil {
		t.Error("something of nothing")
	}
	z := r.sessions.zone("x", 10*sessionSize)
	first := z.ticketKeys(time.Hour)
	z.store(sessionID{1}, []byte("old"), time.Now().Add(-time.Second))
	z.store(sessionID{2}, []byte("good"), time.Now().Add(time.Hour))
	z.store(sessionID{3}, []byte("newer"), time.Now().Add(time.Hour))
	text := r.Sessions()
	for _, broken := range []string{"", "x", "[{", `[{"name":"y","keys":["AAAA"]}]`, `[{"name":"y","sessions":[{"id":"AA==","state":"","expires":"2999-01-01T00:00:00Z"}]}]`} {
		next := &Runtime{}
		next.RestoreSessions([]byte(broken))
		if next.Sessions() != nil {
			t.Errorf("%s: something", broken)
		}
	}
	next := &Runtime{}
	next.RestoreSessions(text)
	again := next.sessions.zone("x", 10*sessionSize)
	if k := again.ticketKeys(time.Hour); !slices.Equal(k.all, first.all) {
		t.Error("other keys")
	}
	if again.load(sessionID{1}) != nil || string(again.load(sessionID{2})) != "good" || again.last.id != (sessionID{3}) {
		t.Error("other sessions")
	}
}

// TestTicketKeys replaces keys, and opens what older ones closed for a while.
func TestTicketKeys(t *testing.T) {
	z := &sessionZone{}
	first := z.ticketKeys(time.Hour)
	if z.ticketKeys(time.Hour) != first {
		t.Error("a key for each handshake")
	}
	second := z.ticketKeys(-1)
	if len(second.all) != 2 || second.all[1] != first.all[0] {
		t.Error("the key before is gone")
	}
	if third := z.ticketKeys(-1); len(third.all) != 2 || third.all[1] != second.all[0] {
		t.Error("old keys stay")
	}
	if s, err := second.open([]byte("somebody else's ticket"), tls.ConnectionState{}); s != nil || err != nil {
		t.Error(s, err)
	}
}

// TestTLSVariables shows what handshakes came to.
func TestTLSVariables(t *testing.T) {
	r, ca := prepareTLS(t)
	ca.issue("a.test")
	client := ca.issue("client", func(c *x509.Certificate) { c.Subject.Organization = []string{"Müller, Söhne"} })
	r.serve(strings.Replace(tlsServers, `"c"`, `"$ssl_protocol|$ssl_cipher|$ssl_curve|$ssl_curves|$ssl_ciphers|$ssl_alpn_protocol|$ssl_session_reused|$ssl_early_data|`+
		`$ssl_client_s_dn|$ssl_client_i_dn|$ssl_client_s_dn_legacy|$ssl_client_serial|$ssl_client_v_remain|$ssl_client_escaped_cert|$ssl_sigalg|$ssl_client_sigalg|"`, 1))
	got, _, err := r.getTLS("tls", "c.test", "/", &tls.Config{
		ServerName: "c.test", MaxVersion: tls.VersionTLS12, Certificates: []tls.Certificate{client}, CurvePreferences: []tls.CurveID{tls.X25519, tls.CurveP384},
		CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}, NextProtos: []string{"http/1.1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	_, got, _ = strings.Cut(got, "\r\n\r\n")
	f := strings.Split(got, "|")
	offered := f[4]
	f[4] = ""
	want := `TLSv1.2||X25519|X25519:secp384r1||http/1.1|.||CN=client,O=M\C3\BCller\, S\C3\B6hne|CN=ca|/O=M\xC3\xBCller, S\xC3\xB6hne/CN=client|03|2`
	cipher := f[1]
	f[1] = ""
	if head := strings.Join(f[:13], "|"); head != want {
		t.Errorf("got  %s\nwant %s", head, want)
	}
	if first, _, _ := strings.Cut(offered, ":"); first != cipher || !strings.HasPrefix(cipher, "ECDHE-ECDSA-") {
		t.Errorf("%q of %q", cipher, offered)
	}
	if !strings.HasPrefix(f[13], "-----BEGIN%20CERTIFICATE-----%0AMII") || f[14] != "ecdsa_secp256r1_sha256" || f[15] != "" {
		t.Error(f[13:])
	}
}

// TestTLSErrors are mistakes that nginx finds, too.
func TestTLSErrors(t *testing.T) {
	r, ca := prepareTLS(t)
	ca.issue("a.test")
	_ = os.WriteFile(filepath.Join(r.dir, "short.key"), []byte("x"), 0o600)
	_ = os.WriteFile(filepath.Join(r.dir, "empty"), nil, 0o600)
	_ = os.WriteFile(filepath.Join(r.dir, "long"), bytes.Repeat([]byte("x"), 5000), 0o600)
	const pair = "ssl_certificate a.test.crt; ssl_certificate_key a.test.key; "
	for _, tt := range []struct{ server, want string }{
		{"", `no "ssl_certificate" is defined for the "listen ... ssl" directive`},
		{"ssl_certificate a.test.crt;", `no "ssl_certificate_key" is defined for certificate "a.test.crt"`},
		{pair + "ssl_certificate b.crt;", `no "ssl_certificate_key" is defined for certificate "b.crt"`},
		{pair + "ssl_ciphers NOTHING;", `SSL_CTX_set_cipher_list("NOTHING") failed (SSL: error:0A0000B9:SSL routines::no cipher match)`},
		{pair + "ssl_ecdh_curve nothing;", `SSL_CTX_set1_curves_list("nothing") failed (SSL: error:0A080106:SSL routines::passed invalid argument:group 'nothing' cannot be set)`},
		{pair + "ssl_verify_client on;", `no ssl_client_certificate or ssl_trusted_certificate for ssl_verify_client`},
		{pair + "ssl_verify_client on; ssl_client_certificate none;", `cannot load certificate "%dir%/none": BIO_new_file() failed (SSL: error:80000002:system library::No such file or directory:calling fopen(%dir%/none, r) error:10000080:BIO routines::no such file)`},
		{pair + "ssl_trusted_certificate empty;", `cannot load certificate "%dir%/empty": PEM_read_bio_X509_AUX() failed (SSL: error:0480006C:PEM routines::no start line:Expecting: TRUSTED CERTIFICATE)`},
		{pair + "ssl_crl empty;", `cannot load CRL "%dir%/empty": PEM_read_bio_X509_CRL() failed (SSL: error:0480006C:PEM routines::no start line:Expecting: X509 CRL)`},
		{pair + "ssl_ocsp on; ssl_verify_client optional_no_ca;", `"ssl_ocsp" is incompatible with "ssl_verify_client optional_no_ca"`},
		{pair + "ssl_ocsp on; ssl_ocsp_responder https://x/;", `invalid URL prefix in OCSP responder "https://x/" in "ssl_ocsp_responder"`},
		{pair + "ssl_ocsp_cache shared:x;", `invalid OCSP cache "shared:x"`},
		{pair + "ssl_session_cache shared:x:1k;", `session cache "shared:x:1k" is too small`},
		{pair + "ssl_session_cache nowhere;", `invalid session cache "nowhere"`},
		{pair + "ssl_session_ticket_key short.key;", `"%dir%/short.key" must be 48 or 80 bytes`},
		{pair + "ssl_session_ticket_key none;", `open() "%dir%/none" failed (2: No such file or directory)`},
		{pair + "ssl_password_file none;", `open() "%dir%/none" failed (2: No such file or directory)`},
		{pair + "ssl_password_file long;", `too long line in "%dir%/long"`},
		{pair + "ssl_certificate_cache valid=1s;", `"ssl_certificate_cache" must have the "max" parameter`},
		{pair + "ssl_certificate_cache max=0;", `invalid parameter "max=0"`},
		{pair + "ssl_conf_command Options Nothing;", `SSL_CONF_cmd("Options", "Nothing") failed (SSL: error:0A000180:SSL routines::bad value:cmd=Options, value=Nothing)`},
		{pair + "ssl_conf_command Nothing x;", `SSL_CONF_cmd("Nothing", "x") failed (SSL: error:0A000182:SSL routines::unknown cmd name:cmd=Nothing)`},
		{pair + "ssl_conf_command CipherString NOTHING;", `SSL_CONF_cmd("CipherString", "NOTHING") failed (SSL: error:0A0000B9:SSL routines::no cipher match error:0A000180:SSL routines::bad value:cmd=CipherString, value=NOTHING)`},
		{pair + "ssl_conf_command SignatureAlgorithms RSA+SHA256;", `"SignatureAlgorithms" of SSL_CONF_cmd("SignatureAlgorithms", "RSA+SHA256") is not supported by proxyctl`},
		{pair + "ssl_stapling on; ssl_stapling_file none;", `BIO_new_file("%dir%/none") failed (SSL: error:80000002:system library::No such file or directory:calling fopen(%dir%/none, r) error:10000080:BIO routines::no such file)`},
		{pair + "ssl_stapling on; ssl_stapling_file empty;", `d2i_OCSP_RESPONSE_bio("%dir%/empty") failed (SSL: error:0688010A:asn1 encoding routines::nested asn1 error:Type=OCSP_RESPONSE)`},
		{pair + "ssl_certificate engine:x:y; ssl_certificate_key engine:x:y;", `"engine:" in "ssl_certificate" is not supported by proxyctl`},
		{pair + "ssl_dhparam empty;", `PEM_read_bio_DHparams("%dir%/empty") failed (SSL: error:0480006C:PEM routines::no start line:Expecting: DH PARAMETERS)`},
		// warnings
		{pair + "ssl_early_data on;", `"ssl_early_data" is not supported on this platform, ignored`},
		{pair + "ssl_stapling on;", `"ssl_stapling" ignored, issuer certificate not found for certificate "%dir%/a.test.crt"`},
		{pair + "ssl_stapling on; ssl_trusted_certificate ca.crt;", `"ssl_stapling" ignored, no OCSP responder URL in the certificate "%dir%/a.test.crt"`},
		{pair + "ssl_stapling on; ssl_trusted_certificate ca.crt; ssl_stapling_responder ftp://x;", `"ssl_stapling" ignored, invalid URL prefix in OCSP responder "ftp://x" in the certificate "%dir%/a.test.crt"`},
	} {
		_, diags := r.parse("events {} http { server { listen unix:%dir%/s ssl; " + tt.server + " } }")
		want := strings.ReplaceAll(tt.want, "%dir%", r.dir)
		if len(diags) == 0 || diags[0].Message != want {
			t.Errorf("%s\n got %v\nwant %s", tt.server, diags, want)
		}
	}
}

// TestTLSConfCommand changes settings by OpenSSL's commands.
func TestTLSConfCommand(t *testing.T) {
	for _, tt := range []struct {
		name, value string
		want        tlsSettings
	}{
		{"MinProtocol", "TLSv1.3", tlsSettings{versions: protocolTLS13}},
		{"MaxProtocol", "TLSv1.2", tlsSettings{versions: protocolTLS12}},
		{"Protocol", "-TLSv1.2, TLSv1.1", tlsSettings{versions: protocolTLS11 | protocolTLS13}},
		{"CipherString", "HIGH", tlsSettings{versions: protocolTLS12 | protocolTLS13, ciphers: "HIGH"}},
		{"Groups", "X25519", tlsSettings{versions: protocolTLS12 | protocolTLS13, curves: "X25519"}},
		{"Options", "SessionTicket,ServerPreference,-Compression", tlsSettings{versions: protocolTLS12 | protocolTLS13, tickets: true, serverChooses: true}},
		{"Ciphersuites", "TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256", tlsSettings{versions: protocolTLS12 | protocolTLS13}},
		{"PrivateKey", "/k", tlsSettings{versions: protocolTLS12 | protocolTLS13, pair: CertPair{Key: "/k"}}},
	} {
		o := &Options{}
		got := tlsSettings{versions: protocolTLS12 | protocolTLS13, opts: o}
		c := &tlsCommands{items: []tlsCommand{{name: tt.name, value: tt.value}}}
		if err := c.apply(&got); err != nil {
			t.Error(tt.name, err)
		}
		if tt.want.opts = o; got != tt.want {
			t.Errorf("%s %s: %+v", tt.name, tt.value, got)
		}
	}
}

// TestCertificateNames reads certificates that the client's name leads to.
func TestCertificateNames(t *testing.T) {
	r, ca := prepareTLS(t)
	for _, name := range []string{"a.test", "b.test"} {
		ca.issue(name)
	}
	r.serve(`daemon off; events {} http {
	error_log logs/error.log info;
	ssl_certificate_cache max=4 valid=1h;
	map $ssl_server_name $name { default $ssl_server_name; c.test a.test; }
	server { listen unix:%dir%/tls ssl; ssl_certificate $name.crt; ssl_certificate_key $name.key; return 200 ok; }
}`)
	for _, tt := range []struct{ sni, cn, log string }{
		{"a.test", "a.test", ""},
		{"b.test", "b.test", ""},
		{"c.test", "a.test", ""},
		{"d.test", "", "[error] *open " + r.dir + "/d.test.crt: no such file or directory while SSL handshaking*[crit] *SSL_do_handshake() failed (SSL: error:0A000179:SSL routines::cert cb error)"},
		{"../ca", "", `cannot load certificate "../ca.crt": unsafe name`},
	} {
		_, state, err := r.getTLS("tls", "x", "/", &tls.Config{ServerName: tt.sni})
		switch {
		case tt.cn == "" && err == nil:
			t.Error(tt.sni, "no error")
		case tt.cn != "" && (err != nil || state.PeerCertificates[0].Subject.CommonName != tt.cn):
			t.Error(tt.sni, err)
		}
		for part := range strings.SplitSeq(tt.log, "*") {
			r.await("logs/error.log", part)
		}
	}
}

// TestStapling asks a responder, and verifies what it says if told so.
func TestStapling(t *testing.T) {
	r, ca := prepareTLS(t)
	status := ocsp.Good
	signer, signerKey := ca.cert, ca.key
	var certificate *x509.Certificate
	responder := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		answer := ocsp.Response{Status: status, SerialNumber: certificate.SerialNumber, ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour), RevokedAt: time.Now(), Certificate: signer}
		der, err := ocsp.CreateResponse(ca.cert, signer, answer, signerKey)
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", "application/ocsp-response")
		_, _ = w.Write(der)
	}))
	defer responder.Close()
	certificate = ca.issue("a.test", func(c *x509.Certificate) { c.OCSPServer = []string{responder.URL} }).Leaf
	helper := ca.issue("helper")
	entitled := ca.issue("entitled", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning} })

	server := strings.Replace(tlsServers, "error_log", "ssl_stapling on; ssl_stapling_verify on; ssl_trusted_certificate ca.crt; error_log", 1)
	r.serve(server)
	for _, tt := range []struct {
		name    string
		status  int
		by      tls.Certificate
		stapled bool
		log     string
	}{
		{"issuer", ocsp.Good, tls.Certificate{Leaf: ca.cert, PrivateKey: ca.key}, true, ""},
		{"entitled", ocsp.Good, entitled, true, ""},
		{"not entitled", ocsp.Good, helper, false, "OCSP_basic_verify() failed (SSL: error:13800067:OCSP routines::missing ocspsigning usage) while requesting certificate status, responder: http://127.0.0.1"},
		{"revoked", ocsp.Revoked, entitled, false, `certificate status "revoked" in the OCSP response while requesting certificate status`},
	} {
		status, signer, signerKey = tt.status, tt.by.Leaf, tt.by.PrivateKey.(*ecdsa.PrivateKey)
		if err := r.Reload(r.load(server)); err != nil {
			t.Fatal(err)
		}
		stapled := func() bool {
			_, state, err := r.getTLS("tls", "a.test", "/", &tls.Config{ServerName: "a.test"})
			if err != nil {
				t.Fatal(err)
			}
			return len(state.OCSPResponse) > 0
		}
		if stapled() {
			t.Error(tt.name, "stapled before it was asked for")
		}
		if tt.log != "" {
			r.await("logs/error.log", tt.log)
		}
		for i := 0; tt.stapled && !stapled() && i < 200; i++ {
			time.Sleep(5 * time.Millisecond)
		}
		if stapled() != tt.stapled {
			t.Errorf("%s: not %t", tt.name, tt.stapled)
		}
	}
}

// TestCipherStrings holds the order of ciphers against OpenSSL's.
func TestCipherStrings(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"HIGH:!aNULL:!MD5", ""},
		{"DEFAULT", ""},
		{"ALL:!ADH:!eNULL:+RC4:@STRENGTH", ""},
		{"ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384", ""},
		{"EECDH+AESGCM:EDH+AESGCM:AES256+EECDH", ""},
		{"AES128:AES256:-AES256:CHACHA20:+AES128", ""},
		{"kRSA+AES:-AES128-SHA:AES128-SHA", ""},
		{"ECDHE+CHACHA20:ECDHE+AESGCM:!SHA1:!aPSK", ""},
		{"AESCCM8:AESCCM:ARIA:CAMELLIA256", ""},
		{"aRSA+SHA384:kECDHE+SHA256", ""},
		{"NOTHING", "SSL: error:0A0000B9:SSL routines::no cipher match"},
		{"HIGH:!!x", "SSL: error:0A000118:SSL routines::invalid command"},
		{"HIGH:@SECLEVEL=9", "SSL: error:0A000118:SSL routines::invalid command"},
	} {
		list, err := cipherList(tt.text)
		if err != nil || tt.want != "" {
			if fmt.Sprint(err) != tt.want {
				t.Errorf("%s: %v", tt.text, err)
			}
			continue
		}
		var got []string
		for i := range list {
			got = append(got, list[i].name)
		}
		out, err := exec.Command("openssl", "ciphers", "@SECLEVEL=0:"+tt.text).Output()
		if err != nil || strings.HasPrefix(tt.text, "DEFAULT") {
			continue // not installed
		}
		var want []string
		for name := range strings.SplitSeq(strings.TrimSpace(string(out)), ":") {
			if !strings.HasPrefix(name, "TLS_") {
				want = append(want, name)
			}
		}
		if strings.Join(got, ":") != strings.Join(want, ":") {
			t.Errorf("%s\n got %s\nwant %s", tt.text, got, want)
		}
	}
}

// TestSuiteChoice takes the client's order, or the server's if told so.
func TestSuiteChoice(t *testing.T) {
	const aes128, aes256, cbc = tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, tls.TLS_RSA_WITH_AES_128_CBC_SHA
	const ecdsa = tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
	hello := func(version uint16, curve tls.CurveID, suites ...uint16) *tls.ClientHelloInfo {
		return &tls.ClientHelloInfo{SupportedVersions: []uint16{version}, SupportedCurves: []tls.CurveID{curve}, CipherSuites: suites}
	}
	for _, tt := range []struct {
		prefer bool
		hello  *tls.ClientHelloInfo
		want   []uint16
	}{
		{false, hello(tls.VersionTLS12, tls.X25519, aes128, aes256), []uint16{aes128}},
		{true, hello(tls.VersionTLS12, tls.X25519, aes128, aes256), []uint16{aes256}},
		{false, hello(tls.VersionTLS12, tls.X25519, aes128, ecdsa, aes256), []uint16{aes128, ecdsa}},
		{false, hello(tls.VersionTLS12, 0x9999, aes128, cbc), []uint16{cbc}},
		{false, hello(tls.VersionTLS11, tls.X25519, aes128, cbc), []uint16{cbc}},
		{false, hello(tls.VersionTLS12, tls.X25519, 1, 2), []uint16{}},
	} {
		suites, err := servedSuites("ECDHE-RSA-AES256-GCM-SHA384:ECDHE-RSA-AES128-GCM-SHA256:AES128-SHA:ECDHE-ECDSA-AES128-GCM-SHA256", 0)
		if err != nil {
			t.Fatal(err)
		}
		h := &handshake{server: &tlsServer{suites: suites, serverChooses: tt.prefer}}
		if got := h.suitesFor(tt.hello, tls.VersionTLS12); fmt.Sprint(got) != fmt.Sprint(tt.want) {
			t.Errorf("%x, not %x", got, tt.want)
		}
	}
}

// TestRevocationList reads lists of both versions.
func TestRevocationList(t *testing.T) {
	ca := newTestCA(t, t.TempDir(), "ca")
	revoked := ca.issue("x")
	now := time.Now().UTC().Truncate(time.Second)
	list, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(1), ThisUpdate: now, NextUpdate: now.Add(time.Hour),
		RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: revoked.Leaf.SerialNumber, RevocationTime: now}},
	}, ca.cert, ca.key)
	if err != nil {
		t.Fatal(err)
	}
	old := list1(t, ca, revoked.Leaf.SerialNumber, now)
	for version, der := range map[int][]byte{2: list, 1: old} {
		l, err := parseRevocationList(der)
		if err != nil {
			t.Fatal(version, err)
		}
		if !l.isBy(ca.cert) || !l.has(revoked.Leaf.SerialNumber) || l.has(big.NewInt(77)) || !l.next.Equal(now.Add(time.Hour)) {
			t.Errorf("version %d: %+v", version, l)
		}
	}
	if _, err := parseRevocationList(old[:len(old)-1]); err == nil {
		t.Error("read half a list")
	}
}

// list1 makes a list of version 1, which crypto/x509 does not.
func list1(t *testing.T, ca *testCA, serial *big.Int, now time.Time) []byte {
	t.Helper()
	type revoked struct {
		Serial *big.Int
		When   time.Time
	}
	algorithm := pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}}
	signed, err := asn1.Marshal(struct {
		Algorithm  pkix.AlgorithmIdentifier
		Issuer     asn1.RawValue
		ThisUpdate time.Time
		NextUpdate time.Time
		Revoked    []revoked
	}{algorithm, asn1.RawValue{FullBytes: ca.cert.RawSubject}, now, now.Add(time.Hour), []revoked{{serial, now}}})
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(signed)
	signature, err := ecdsa.SignASN1(rand.Reader, ca.key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	der, err := asn1.Marshal(struct {
		Signed    asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}{asn1.RawValue{FullBytes: signed}, algorithm, asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}})
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// TestHasName compares names as X509_check_host does.
func TestHasName(t *testing.T) {
	for _, tt := range []struct {
		names []string
		cn    string
		host  string
		want  bool
	}{
		{nil, "a.test", "a.test", true},
		{nil, "a.test", "A.TEST", true},
		{[]string{"b.test"}, "a.test", "a.test", false},
		{[]string{"*.b.test"}, "", "x.b.test", true},
		{[]string{"*.b.test"}, "", "x.y.b.test", false},
		{[]string{"*.b.test"}, "", "b.test", false},
		{[]string{"*.test"}, "", "b.test", false},
		{[]string{"x*.b.test"}, "", "xy.b.test", true},
		{[]string{"x*y.b.test"}, "", "xzy.b.test", false},
		{[]string{"*"}, "", "b", false},
		{nil, "", "", false},
	} {
		der, _ := asn1.Marshal(pkix.Name{CommonName: tt.cn}.ToRDNSequence())
		cert := &x509.Certificate{DNSNames: tt.names, RawSubject: der}
		if got := hasName(cert, tt.host); got != tt.want {
			t.Errorf("%v %q %q: %t", tt.names, tt.cn, tt.host, got)
		}
	}
}

// TestNamesOfOpenSSL holds names in certificates against OpenSSL's.
func TestNamesOfOpenSSL(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip(err)
	}
	file := filepath.Join(t.TempDir(), "x")
	for _, subject := range []string{
		`/C=DE/ST=Saarland/O=Söhne, AG/OU= lead+trail /CN=#1 "x"\\<y>;z`, `/DC=test/DC=a/UID=u/emailAddress=a@b.test/1.2.3.4=odd/serialNumber=7`, `/O=a\/b\+c\\d/CN=b+CN=c`,
	} {
		out, err := exec.Command("openssl", "req", "-new", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-utf8", "-multivalue-rdn",
			"-keyout", file+".key", "-out", file+".crt", "-subj", subject).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %s", subject, out)
		}
		text, _ := os.ReadFile(file + ".crt")
		block, _ := pem.Decode(text)
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		for option, got := range map[string][]byte{"RFC2253": appendName(nil, cert.RawSubject), "compat": appendNameOnLine(nil, cert.RawSubject)} {
			want, err := exec.Command("openssl", "x509", "-in", file+".crt", "-noout", "-subject", "-nameopt", option).Output()
			if err != nil {
				t.Fatal(err)
			}
			if want := strings.TrimSuffix(strings.TrimPrefix(string(want), "subject="), "\n"); string(got) != want {
				t.Errorf("%s\n got %s\nwant %s", option, got, want)
			}
		}
	}
}

// FuzzName takes apart names that clients send.
func FuzzName(f *testing.F) {
	der, _ := asn1.Marshal(pkix.Name{CommonName: "a", Organization: []string{"b, c", "ü"}}.ToRDNSequence())
	f.Add(der)
	f.Add([]byte{0x30, 0x0b, 0x31, 0x09, 0x30, 0x07, 0x06, 0x01, 0x2a, 0x1e, 0x02, 0xd8, 0x00})
	f.Fuzz(func(t *testing.T, der []byte) {
		for _, name := range [][]byte{appendName(nil, der), appendNameOnLine(nil, der)} {
			if i := bytes.IndexFunc(name, func(r rune) bool { return r < ' ' || r > '~' }); i >= 0 {
				t.Errorf("%q", name)
			}
		}
	})
}

// TestCertCache forgets and renews.
func TestCertCache(t *testing.T) {
	dir := t.TempDir()
	loads := 0
	load := func(CertPair) (*tls.Certificate, error) { loads++; return &tls.Certificate{}, nil }
	pair := func(name string) CertPair {
		name = filepath.Join(dir, name)
		return CertPair{Certificate: name, Key: name}
	}
	c := &certCache{most: 4, inactive: time.Hour, valid: time.Hour, entries: map[CertPair]*cachedCert{}}
	for _, tt := range []struct {
		name  string
		loads int
	}{{"a", 1}, {"a", 1}, {"b", 2}, {"c", 3}, {"a", 4}, {"c", 4}, {"b", 5}} {
		if _, err := c.get(pair(tt.name), load); err != nil || loads != tt.loads {
			t.Errorf("%s: read %d times, %v", tt.name, loads, err)
		}
	}
	if c.valid = 0; len(c.entries) != 2 {
		t.Errorf("%d entries", len(c.entries))
	}
	if err := os.WriteFile(filepath.Join(dir, "b"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for i, want := range []int{6, 6} { // new, then unchanged
		if _, err := c.get(pair("b"), load); err != nil || loads != want {
			t.Errorf("%d: read %d times, %v", i, loads, err)
		}
	}
	if c.inactive = -1; len(c.entries) == 0 {
		t.Error("forgotten too early")
	}
	if _, _ = c.get(pair("b"), load); loads != 7 || len(c.entries) != 1 {
		t.Errorf("%d entries, read %d times", len(c.entries), loads)
	}
}

// TestSmallRecords cuts what is written into records.
func TestSmallRecords(t *testing.T) {
	r, ca := prepareTLS(t)
	ca.issue("a.test")
	r.serve(strings.Replace(tlsServers, "error_log", "ssl_buffer_size 1k; error_log", 1))
	_ = os.WriteFile(filepath.Join(r.dir, "html", "big"), bytes.Repeat([]byte("x"), 5000), 0o600)
	if err := r.Reload(r.load(strings.NewReplacer("error_log", "ssl_buffer_size 1k; error_log", `return 200 "a $ssl_server_name $ssl_protocol";`, "").Replace(tlsServers))); err != nil {
		t.Fatal(err)
	}
	nc := &countingConn{Conn: r.dial("tls")}
	defer nc.Close()
	c := tls.Client(nc, &tls.Config{InsecureSkipVerify: true})
	_, _ = io.WriteString(c, "GET /big HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
	b, err := io.ReadAll(c)
	if err != nil || !bytes.HasSuffix(b, bytes.Repeat([]byte("x"), 5000)) || nc.largest > 1<<10+100 {
		t.Errorf("%v, %d bytes, the largest record %d", err, len(b), nc.largest)
	}
}

// countingConn notes the largest record of application data.
type countingConn struct {
	net.Conn
	pending []byte
	largest int
}

func (c *countingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.pending = append(c.pending, p[:n]...)
	for len(c.pending) >= 5 {
		size := int(c.pending[3])<<8 | int(c.pending[4])
		if len(c.pending) < 5+size {
			break
		}
		if c.pending[0] == 23 && size < 2048 || c.pending[0] == 23 && size > 4096 {
			c.largest = max(c.largest, size)
		}
		c.pending = c.pending[5+size:]
	}
	return n, err
}

func underRaceDetector() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.ContainsFunc(info.Settings, func(s debug.BuildSetting) bool { return s.Key == "-race" && s.Value == "true" })
}

// TestTLSAllocations keeps requests over TLS as cheap as others.
func TestTLSAllocations(t *testing.T) {
	if underRaceDetector() {
		t.Skip("pools drop things under the race detector")
	}
	r, ca := prepareTLS(t)
	ca.issue("a.test")
	r.serve(strings.Replace(tlsServers, `return 200 "a $ssl_server_name $ssl_protocol"`, `access_log off; return 200 "$ssl_protocol $ssl_cipher $ssl_session_reused"`, 1))
	nc := r.dial("tls")
	defer nc.Close()
	c := tls.Client(nc, &tls.Config{InsecureSkipVerify: true})
	request, buf := []byte("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"), make([]byte, 4096)
	// Others allocate meanwhile, the clock once a second: the least of some
	// measurements is that of the requests.
	n := leastAllocs(func() {
		if _, err := c.Write(request); err != nil {
			t.Fatal(err)
		}
		for got := 0; !bytes.Contains(buf[:got], []byte("\r\n\r\nTLSv1.3")); {
			n, err := c.Read(buf[got:])
			if err != nil {
				t.Fatal(err)
			}
			got += n
		}
	})
	if n > 2 { // crypto/tls makes one for each record that it reads, at both ends
		t.Errorf("%v allocations", n)
	}
}

// TestTLSReload has connections that stay follow the new configuration, which may
// trust others than the old one.
func TestTLSReload(t *testing.T) {
	for _, protocol := range []string{"HTTP/1.1", "HTTP/2.0"} {
		t.Run(protocol, func(t *testing.T) {
			r, ca := prepareTLS(t)
			ca.issue("a.test")
			client := ca.issue("client")
			newTestCA(t, r.dir, "other")
			conf := strings.Replace(tlsServers, `ssl_verify_client on; ssl_client_certificate ca.crt; return 200 "b`, `http2 on; ssl_verify_client optional_no_ca; ssl_client_certificate ca.crt; return 200 "one`, 1)
			r.serve(conf)
			connections := 0
			transport := &http.Transport{ForceAttemptHTTP2: true, DialTLSContext: func(context.Context, string, string) (net.Conn, error) {
				connections++
				config := &tls.Config{ServerName: "b.test", InsecureSkipVerify: true, NextProtos: []string{"h2"}}
				config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &client, nil }
				if protocol == "HTTP/1.1" {
					config.NextProtos = nil
				}
				c := tls.Client(r.dial("tls"), config)
				return c, c.Handshake()
			}}
			defer transport.CloseIdleConnections()
			get := func() string {
				answer, err := (&http.Client{Transport: transport}).Get("https://b.test/")
				if err != nil {
					t.Fatal(err)
				}
				defer answer.Body.Close()
				body, _ := io.ReadAll(answer.Body)
				return answer.Proto + " " + answer.Header.Get("X-Verify") + " " + string(body)
			}
			if got := get(); got != protocol+" SUCCESS one CN=client" {
				t.Error(got)
			}
			if err := r.Reload(r.load(strings.NewReplacer("200 \"one", "200 \"two", "ssl_client_certificate ca.crt", "ssl_client_certificate other.crt").Replace(conf))); err != nil {
				t.Fatal(err)
			}
			if got := get(); got != protocol+" FAILED:unable to verify the first certificate two CN=client" {
				t.Error(got)
			}
			if connections > 2 {
				t.Error(connections, "connections")
			}
		})
	}
}

func leastAllocs(f func()) float64 {
	n := testing.AllocsPerRun(100, f)
	for range 4 {
		n = min(n, testing.AllocsPerRun(100, f))
	}
	return n
}

// TestSessionNoteLasts: what is kept with a session is valid for no shorter time.
func TestSessionNoteLasts(t *testing.T) {
	for _, part := range []time.Duration{0, 1, 900 * time.Millisecond} {
		n := sessionNote{expires: time.Unix(10, int64(part))}
		var s tls.SessionState
		n.append(&s)
		if got, ok := readSessionNote(&s); !ok || got.expires.Before(n.expires) || got.expires.Sub(n.expires) >= time.Second {
			t.Errorf("%v became %v", n.expires, got.expires)
		}
	}
}
