package main

import (
	"fmt"
	"strings"

	"proxyctl/certs"
)

// What Certbot's sites include beside certificates. Where certificates need not
// be there, these files need not be there either.

// withoutCertbot says whether sites of Certbot are served without it.
func (p *process) withoutCertbot() bool {
	return p.local != nil || p.acme.Takeover == certs.TakeoverAll
}

// certbotFile gives the text of Certbot's option file where it does not exist.
func (p *process) certbotFile(path string) ([]byte, bool) {
	if !p.withoutCertbot() || !strings.HasSuffix(path, "/options-ssl-nginx.conf") {
		return nil, false
	}
	if p.out != nil {
		fmt.Fprintf(p.out, "%s does not exist: using what Certbot writes there\n", path)
	}
	return []byte(certbotOptions), true
}

// mayMiss says that a file need not exist: parameters that are of no use here,
// and the chain of a certificate that is obtained as well, which is for stapling.
func (p *process) mayMiss(path string) bool {
	if strings.HasSuffix(path, "/chain.pem") && p.acme.Takeover == certs.TakeoverLineages {
		return certs.OfCertbot(path)
	}
	return p.withoutCertbot() && (strings.HasSuffix(path, "/ssl-dhparams.pem") || strings.HasSuffix(path, "/chain.pem"))
}

// certbotOptions says what Certbot's options-ssl-nginx.conf says.
const certbotOptions = `ssl_session_cache shared:le_nginx_SSL:10m;
ssl_session_timeout 1440m;
ssl_session_tickets off;
ssl_protocols TLSv1.2 TLSv1.3;
ssl_prefer_server_ciphers off;
ssl_ciphers "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:DHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES256-GCM-SHA384";
`
