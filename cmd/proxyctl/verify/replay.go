package verify

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"proxyctl/parser"
	"proxyctl/proxy"
)

// LogInfo says what became of an access log.
type LogInfo struct {
	File          string `json:"file"`
	Format        string `json:"format"`
	Lines         int    `json:"lines"`
	Replayed      int    `json:"replayed"`
	NotUnderstood int    `json:"notUnderstood"`
	NotSafe       int    `json:"notSafe"` // methods that may change something
	Repeated      int    `json:"repeated"`
}

// logFormat reads lines of an access log.
type logFormat struct {
	name      string
	pattern   *regexp.Regexp
	variables []string
	json      bool // escape=json
	raw       bool // escape=none
}

const combined = `$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent"`

var logVariable = regexp.MustCompile(`\$(?:\{(\w+)\}|(\w+))`)

// newLogFormat makes an expression of a format.
func newLogFormat(name, text, escape string) (*logFormat, error) {
	f := &logFormat{name: name, json: escape == "json", raw: escape == "none"}
	pattern, at := "^", 0
	for _, m := range logVariable.FindAllStringSubmatchIndex(text, -1) {
		pattern += regexp.QuoteMeta(text[at:m[0]]) + "(.*?)"
		at = m[1]
		if m[2] >= 0 {
			f.variables = append(f.variables, text[m[2]:m[3]])
		} else {
			f.variables = append(f.variables, text[m[4]:m[5]])
		}
	}
	var err error
	f.pattern, err = regexp.Compile(pattern + regexp.QuoteMeta(text[at:]) + "$")
	return f, err
}

// logFormats gives the formats of a configuration, and the one that nginx knows
// anyway.
func logFormats(body *parser.Block) ([]*logFormat, error) {
	var out []*logFormat
	var fail error
	add := func(name, text, escape string) {
		f, err := newLogFormat(name, text, escape)
		if err != nil {
			fail = err
			return
		}
		out = append(out, f)
	}
	each(body, func(d *parser.Directive) {
		if d.Name.Value != "log_format" || len(d.Args) < 2 {
			return
		}
		text, escape := "", ""
		for _, a := range d.Args[1:] {
			if e, ok := strings.CutPrefix(a.Value, "escape="); ok && text == "" {
				escape = e
				continue
			}
			text += a.Value
		}
		add(d.Args[0].Value, text, escape)
	})
	add("combined", combined, "")
	return out, fail
}

// read gives the values of a line by their variables; nil for a line of another
// format.
func (f *logFormat) read(line string) map[string]string {
	m := f.pattern.FindStringSubmatch(line)
	if m == nil {
		return nil
	}
	out := map[string]string{}
	for i, name := range f.variables {
		value := m[i+1]
		if !f.raw {
			value = unescapeLog(value)
		}
		if value == "-" && !f.json {
			value = ""
		}
		out[name] = value
	}
	return out
}

var logEscape = regexp.MustCompile(`\\x[0-9A-Fa-f]{2}|\\u[0-9A-Fa-f]{4}|\\.`)

func unescapeLog(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	return logEscape.ReplaceAllStringFunc(s, func(e string) string {
		switch e[1] {
		case 'x', 'u':
			n, _ := strconv.ParseUint(e[2:], 16, 16)
			return string([]byte{byte(n)})
		case 'n':
			return "\n"
		case 'r':
			return "\r"
		case 't':
			return "\t"
		}
		return e[1:]
	})
}

// safeMethods may be repeated.
func safeMethod(m string) bool { return m == "GET" || m == "HEAD" || m == "OPTIONS" }

// newest gives the last n lines of a file.
func newest(name string, n int) ([]string, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	ring := make([]string, 0, n)
	at := 0
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if len(ring) < n {
			ring = append(ring, lines.Text())
			continue
		}
		ring[at] = lines.Text()
		at = (at + 1) % n
	}
	return append(slices.Clone(ring[at:]), ring[:at]...), lines.Err()
}

// replayed makes requests of the lines of a log.
func (c *comparison) replayed() ([]*request, error) {
	if c.Log == "" || c.LogLines <= 0 {
		return nil, nil
	}
	lines, err := newest(c.Log, c.LogLines)
	if err != nil {
		return nil, err
	}
	formats, err := logFormats(c.file.Body)
	if err != nil {
		return nil, err
	}
	info := &LogInfo{File: c.Log, Lines: len(lines)}
	c.report.Log = info
	var best *logFormat
	most := 0
	for _, f := range formats {
		n := 0
		for _, l := range lines[max(0, len(lines)-200):] {
			if v := f.read(l); v != nil && requestOf(v) != nil {
				n++
			}
		}
		if n > most {
			best, most = f, n
		}
	}
	if best == nil {
		return nil, fmt.Errorf("%s: its lines are in no format of the configuration that tells the request", c.Log)
	}
	info.Format = best.name
	addresses := c.addresses()
	if len(addresses) == 0 {
		return nil, errors.New("the configuration listens nowhere")
	}
	seen := map[string]bool{}
	var out []*request
	for _, l := range lines {
		r := requestOf(best.read(l))
		switch {
		case r == nil:
			info.NotUnderstood++
			continue
		case !safeMethod(r.Method):
			info.NotSafe++
			continue
		}
		r.To = c.addressFor(r, addresses)
		r.Fields = slices.DeleteFunc(r.Fields, func(f string) bool { return strings.HasPrefix(f, ":") })
		r.Why, r.Place = "a line of "+c.Log, ""
		key := r.To.Address.String() + r.wire()
		if seen[key] {
			info.Repeated++
			continue
		}
		seen[key] = true
		info.Replayed++
		out = append(out, r)
	}
	return out, nil
}

// requestOf makes a request of the values of a line. What tells the address is
// left in its fields, behind a colon.
func requestOf(v map[string]string) *request {
	if v == nil {
		return nil
	}
	r := &request{}
	r.Method, r.Target = v["request_method"], v["request_uri"]
	if line, ok := v["request"]; ok {
		method, rest, _ := strings.Cut(line, " ")
		target, version, _ := strings.Cut(rest, " ")
		if strings.HasPrefix(version, "HTTP/") {
			r.Method, r.Target = method, target
		}
	}
	if r.Target == "" && v["uri"] != "" {
		r.Target = proxy.EscapedTarget(v["uri"])
		if v["args"] != "" {
			r.Target += "?" + v["args"]
		}
	}
	if r.Method == "" && r.Target != "" {
		r.Method = "GET"
	}
	bad := func(s string) bool {
		return strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f })
	}
	if r.Method == "" || r.Target == "" || bad(r.Method) || bad(r.Target) {
		return nil
	}
	for _, name := range []string{"http_host", "host", "server_name"} {
		if h := v[name]; h != "" && h != "_" && !bad(h) && r.Host == "" {
			r.Host = h
		}
	}
	if r.Host == "" {
		r.Host = proxy.UnknownHost
	}
	names := make([]string, 0, len(v))
	for name := range v {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		field, ok := strings.CutPrefix(name, "http_")
		if !ok || v[name] == "" || name == "http_host" || strings.ContainsAny(v[name], "\r\n\x00") {
			continue
		}
		switch field {
		case "connection", "content_length", "transfer_encoding", "upgrade", "expect", "te":
			continue // about the connection of then
		}
		r.Fields = append(r.Fields, strings.ReplaceAll(field, "_", "-")+": "+v[name])
	}
	r.Fields = append(r.Fields, ":port "+v["server_port"], ":scheme "+v["scheme"])
	return r
}

// addresses gives what the configuration listens on, in order.
func (c *comparison) addresses() []proxy.ListenAddress {
	var out []proxy.ListenAddress
	for _, list := range c.table.ListenAddresses() {
		for _, a := range list {
			if !strings.HasPrefix(a.Network, "udp") && !slices.ContainsFunc(out, func(o proxy.ListenAddress) bool { return o.Address == a.Address }) {
				out = append(out, a)
			}
		}
	}
	slices.SortFunc(out, func(a, b proxy.ListenAddress) int { return a.Address.Compare(b.Address) })
	return out
}

// addressFor chooses where a logged request goes: by its port, by its scheme,
// else where TLS is spoken.
func (c *comparison) addressFor(r *request, addresses []proxy.ListenAddress) proxy.ListenAddress {
	score := func(a proxy.ListenAddress) int {
		_, port, _ := net.SplitHostPort(c.original[a.Address.String()])
		n := 0
		if slices.Contains(r.Fields, ":port "+port) {
			n += 4
		}
		if slices.Contains(r.Fields, ":scheme https") && a.TLS || slices.Contains(r.Fields, ":scheme http") && !a.TLS {
			n += 2
		}
		if a.TLS && slices.Contains(r.Fields, ":scheme ") {
			n++
		}
		return n
	}
	best := addresses[0]
	for _, a := range addresses {
		if score(a) > score(best) {
			best = a
		}
	}
	return best
}
