package proxy

import (
	"bytes"
	"crypto/md5"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"time"

	"proxyctl/parser"
)

// ngx_http_secure_link_module: tells whether a link carries the right digest
// and has not expired.

func secureLinkModule() Module {
	const in = inHTTPLevels
	return Module{
		Name: "ngx_http_secure_link_module",
		Commands: []Command{
			ValueOf(Command{Name: "secure_link", In: in, Syntax: "expression", Doc: "Sets where the digest and the lifetime of a link are."}, func(c *Conf) **Value { return &c.SecureLink.link }),
			ValueOf(Command{Name: "secure_link_md5", In: in, Syntax: "expression", Doc: "Sets what the digest is of."}, func(c *Conf) **Value { return &c.SecureLink.md5 }),
			{Name: "secure_link_secret", In: in, Args: "1", Syntax: "word", Doc: "Sets the secret word of links.", Set: func(l *Level, d *parser.Directive) error {
				l.Conf.SecureLink.secret, l.Conf.SecureLink.level = []byte(d.Args[0].Value), l
				return nil
			}},
		},
		Variables: []Variable{
			readOnly("secure_link", func(dst []byte, x *Exchange) ([]byte, bool) { return x.loc.Conf.SecureLink.append(dst, x) }),
			readOnly("secure_link_expires", func(dst []byte, x *Exchange) ([]byte, bool) {
				_, expires, ok := x.loc.Conf.SecureLink.parts(x)
				return append(dst, expires...), ok && len(expires) > 0
			}),
		},
		Finish: finishSecureLink,
	}
}

// secureLinkConf is what the module knows at a level.
type secureLinkConf struct {
	link, md5 *Value
	secret    []byte // nil: none
	level     *Level // that has secure_link_secret
}

// finishSecureLink: the two ways exclude each other; what a level says itself
// replaces the other way that it inherits.
func finishSecureLink(l *Level) error {
	if l.Context == InHTTP { // what is said there is only inherited
		return nil
	}
	c := &l.Conf.SecureLink
	own := false
	for cmd := range l.first {
		own = own || cmd.Name == "secure_link" || cmd.Name == "secure_link_md5"
	}
	switch {
	case c.level == l && own:
		return say("\"secure_link_secret\" cannot be mixed with \"secure_link\" and \"secure_link_md5\"")
	case c.level == l:
		c.link, c.md5 = nil, nil
	case c.link != nil || c.md5 != nil:
		c.secret = nil
	}
	return nil
}

// parts takes "digest,time" apart; ok says that the time is one.
func (c *secureLinkConf) parts(x *Exchange) (digest, expires []byte, ok bool) {
	if c.secret != nil || c.link == nil || c.md5 == nil {
		return nil, nil, false
	}
	digest, expires, has := bytes.Cut(c.link.Bytes(x), comma)
	if has {
		if n, isNumber := digits(string(expires)); !isNumber || n == 0 {
			return nil, nil, false
		}
	}
	return digest, expires, true
}

// append gives $secure_link: "1", "0" after its time, or nothing
// (ngx_http_secure_link_variable).
func (c *secureLinkConf) append(dst []byte, x *Exchange) ([]byte, bool) {
	if c.secret != nil {
		return c.appendPath(dst, x)
	}
	digest, expires, ok := c.parts(x)
	if !ok || len(digest) > 24 {
		return dst, false
	}
	sum, ok := decodeDigest(digest)
	want := md5.Sum(c.md5.Bytes(x))
	if !ok || subtle.ConstantTimeCompare(sum, want[:]) == 0 {
		return dst, false
	}
	if len(expires) > 0 {
		if n, _ := digits(string(expires)); n < time.Now().Unix() {
			return append(dst, '0'), true
		}
	}
	return append(dst, '1'), true
}

// decodeDigest reads base64url, with or without padding.
func decodeDigest(s []byte) ([]byte, bool) {
	if i := bytes.IndexByte(s, '='); i >= 0 {
		s = s[:i]
	}
	sum, err := base64.RawURLEncoding.AppendDecode(nil, s)
	return sum, err == nil && len(sum) == md5.Size
}

// appendPath gives what follows the digest in "/prefix/digest/path".
func (c *secureLinkConf) appendPath(dst []byte, x *Exchange) ([]byte, bool) {
	uri := x.rawURI
	if len(uri) == 0 {
		return dst, false
	}
	_, rest, ok := bytes.Cut(uri[1:], []byte("/"))
	digest, path, found := bytes.Cut(rest, []byte("/"))
	if !ok || !found || len(digest) != 2*md5.Size || len(path) == 0 {
		return dst, false
	}
	sum, err := hex.AppendDecode(nil, digest)
	want := md5.Sum(append(bytes.Clone(path), c.secret...))
	if err != nil || subtle.ConstantTimeCompare(sum, want[:]) == 0 {
		return dst, false
	}
	return append(dst, path...), true
}
