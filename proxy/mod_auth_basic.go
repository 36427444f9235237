package proxy

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"syscall"

	"proxyctl/parser"
)

// ngx_http_auth_basic_module: access by user name and password (RFC 7617).

func authBasicModule() Module {
	const in = inHTTPLevels | InLimitExcept
	return Module{
		Name: "ngx_http_auth_basic_module",
		Commands: []Command{
			ValueOf(Command{Name: "auth_basic", In: in, Syntax: "string | off", Default: "off", Doc: "Asks for user name and password."}, func(c *Conf) **Value { return &c.AuthBasic.realm }),
			{Name: "auth_basic_user_file", In: in, Args: "1", Syntax: "file", Doc: "Sets the file of user names and passwords.", Set: setUserFile},
		},
		Phase: Access,
		Handler: func(c *Conf) Handler {
			if c.AuthBasic.realm == nil || c.AuthBasic.file == nil {
				return nil
			}
			return c.AuthBasic.handle
		},
	}
}

// authBasicConf is what the module knows at a level.
type authBasicConf struct {
	realm, file *Value
}

func setUserFile(l *Level, d *parser.Directive) error {
	v, err := l.value(d.Args[0].Value)
	l.Conf.AuthBasic.file = v
	return err
}

// handle runs in the access phase (ngx_http_auth_basic_handler).
func (c *authBasicConf) handle(x *Exchange) Code {
	realm := c.realm.Bytes(x)
	if string(realm) == "off" {
		return Declined
	}
	user, password, ok := x.credentials()
	if !ok {
		x.Logf(logInfo, "no user/password was provided for basic authentication")
		return x.askPassword(realm)
	}
	path := x.table.opts.confRelative(c.file.String(x))
	f, err := os.Open(path)
	if err != nil {
		return x.userFileFailed(path, err)
	}
	defer f.Close()
	hashed, err := findPassword(f, user)
	switch {
	case errors.Is(err, io.EOF):
		x.Logf(logError, "user \"%s\" was not found in \"%s\"", user, path)
		return x.askPassword(realm)
	case err != nil:
		x.Logf(logCrit, "%s", SystemError("read()", path, err))
		return 500
	}
	matches, known := passwordMatches(string(password), hashed)
	switch {
	case matches:
		return OK
	case !known:
		x.Logf(logCrit, "the password of user \"%s\" in \"%s\" is kept in a way that is not supported", user, path)
		return 500
	}
	x.Logf(logError, "user \"%s\": password mismatch", user)
	return x.askPassword(realm)
}

func (x *Exchange) userFileFailed(path string, err error) Code {
	if errnoOf(err) == syscall.ENOENT {
		x.Logf(logError, "%s", SystemError("open()", path, err))
		return 403
	}
	x.Logf(logCrit, "%s", SystemError("open()", path, err))
	return 500
}

// askPassword asks for a password in the answer, for a tunnel in the words of
// proxies (RFC 9110, section 11.7).
func (x *Exchange) askPassword(realm []byte) Code {
	challenge := x.keep(`Basic realm="`, realm, `"`)
	if x.isMethod("CONNECT") {
		x.Out.Add(proxyAuthenticateName, challenge)
		return 407
	}
	x.Out.Add(wwwAuthenticateName, challenge)
	return 401
}

var (
	wwwAuthenticateName   = []byte("WWW-Authenticate")
	proxyAuthenticateName = []byte("Proxy-Authenticate")
)

// maxUserLine is how long a line of a password file may be.
const maxUserLine = 2048

// findPassword gives the password of a user as the file keeps it: what follows
// the name and a colon up to another colon or the end of the line. io.EOF: the
// user is not there.
func findPassword(r io.Reader, user []byte) (string, error) {
	b := bufio.NewReaderSize(r, maxUserLine)
	for skip := false; ; {
		line, err := b.ReadSlice('\n')
		more := errors.Is(err, bufio.ErrBufferFull)
		if err != nil && !more && !errors.Is(err, io.EOF) {
			return "", err
		}
		name, rest, colon := bytes.Cut(line, []byte(":"))
		if !skip && colon && len(line) > 0 && line[0] != '#' && bytes.Equal(name, user) {
			if end := bytes.IndexAny(rest, ":\r\n"); end >= 0 {
				rest = rest[:end]
			}
			return string(rest), nil
		}
		if err != nil && !more {
			return "", io.EOF
		}
		skip = more
	}
}
