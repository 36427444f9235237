package verify

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"regexp"
	"slices"
	"strings"
	"time"
)

// difference is one thing in which two answers differ.
type difference struct {
	what string // status, field Vary, body, upstream field Host ...
	how  string // missing, added, other, order
	want string // nginx's
	got  string // ours
}

func (d *difference) key() string {
	key := d.what + "\x00" + d.how
	if d.what == "status" || d.what == "upstream version" {
		key += "\x00" + d.want + "\x00" + d.got
	}
	return key
}

// message is an HTTP message taken apart.
type message struct {
	first  string
	fields []string // "Name: value"
	body   string
}

func parseMessage(text string) message {
	head, body, _ := strings.Cut(text, "\r\n\r\n")
	lines := strings.Split(strings.TrimSuffix(head, "\r\n"), "\r\n")
	m := message{first: lines[0], fields: lines[1:], body: body}
	if strings.HasPrefix(m.first, "HTTP/1.1 100") {
		rest := parseMessage(body)
		rest.first = m.first + ", " + rest.first
		return rest
	}
	return m
}

func (m *message) field(name string) string {
	return fieldOf(m.first+"\r\n"+strings.Join(m.fields, "\r\n"), name)
}

var (
	nginxVersion = regexp.MustCompile(`nginx/[0-9]+\.[0-9.]+( \([^)\r\n]*\))?`)
	// Names of temporary files, and what stub_status counts.
	counted  = regexp.MustCompile(`(/run/(?:body|proxy|fastcgi|uwsgi|scgi)(?:/[0-9]+)*/)[0-9]{10}\b|(Active connections: )[0-9]+|(Reading: )[0-9]+ Writing: [0-9]+ Waiting: [0-9]+`)
	dateLine = regexp.MustCompile(`(?m)^Date: .* GMT\r?$`) // of a second answer
	boundary = regexp.MustCompile(`[0-9]{20}`)
)

// normal removes what no two answers share: dates, versions, boundaries.
func (m *message) normal() {
	now, hasDate := time.Time{}, false
	if t, err := http.ParseTime(m.field("Date")); err == nil {
		now, hasDate = t, true
	}
	chunked := strings.EqualFold(m.field("Transfer-Encoding"), "chunked")
	if chunked {
		// what a chunk is does not matter
		if text, err := io.ReadAll(httputil.NewChunkedReader(strings.NewReader(m.body))); err == nil {
			m.body = string(text)
		} else {
			m.body = string(text) + "\n(broken off: " + err.Error() + ")"
		}
	}
	if strings.EqualFold(m.field("Content-Encoding"), "gzip") {
		m.body = gunzipped(m.body)
	}
	shorter := len(m.body)
	m.body = nginxVersion.ReplaceAllString(m.body, "nginx")
	shorter -= len(m.body)
	m.body = dateLine.ReplaceAllString(m.body, "Date: now")
	m.body = counted.ReplaceAllString(m.body, "${1}${2}${3}N")
	parts := strings.HasPrefix(m.field("Content-Type"), "multipart/")
	if parts {
		m.body = boundary.ReplaceAllString(m.body, "BOUNDARY")
	}
	for i, f := range m.fields {
		name, value, ok := strings.Cut(f, ": ")
		if !ok {
			continue
		}
		value = nginxVersion.ReplaceAllString(counted.ReplaceAllString(value, "${1}N"), "nginx")
		switch strings.ToLower(name) {
		case "date":
			value = "now"
		case "expires":
			if t, err := http.ParseTime(value); err == nil && hasDate && t.Year() > 1971 {
				value = fmt.Sprintf("%v after Date", t.Sub(now))
			}
		case "content-length":
			if shorter > 0 {
				value = fmt.Sprint(len(m.body))
			}
		case "content-type":
			if parts {
				value = boundary.ReplaceAllString(value, "BOUNDARY")
			}
		}
		m.fields[i] = name + ": " + value
	}
}

func gunzipped(body string) string {
	r, err := newGunzip(strings.NewReader(body))
	if err != nil {
		return body
	}
	text, err := io.ReadAll(io.LimitReader(r, maxAnswer))
	if err != nil {
		return body
	}
	return "(compressed) " + string(text)
}

// compare gives what differs between two answers, nothing that follows from
// something else named.
func compare(want, got *answer) []difference {
	switch {
	case want.failure != got.failure && want.failure+got.failure != "":
		return append([]difference{{"answer", "other", describe(want), describe(got)}}, compareUpstream(want.upstream, got.upstream)...)
	case want.tls != got.tls && afterVersion(want.tls) != afterVersion(got.tls):
		return []difference{{"TLS", "other", want.tls, got.tls}}
	}
	a, b := parseMessage(string(want.text)), parseMessage(string(got.text))
	a.normal()
	b.normal()
	var out []difference
	if want.tls != got.tls {
		out = append(out, difference{"TLS version", "other", want.tls, got.tls})
	}
	asked := compareUpstream(want.upstream, got.upstream)
	if a.first != b.first {
		return append(append(out, difference{"status", "other", a.first, b.first}), asked...)
	}
	out = append(out, asked...)
	compression := false
	fields := compareFields("field ", a.fields, b.fields)
	for _, d := range fields {
		compression = compression || strings.EqualFold(d.what, "field Content-Encoding")
	}
	different := a.body != b.body && !compression
	for _, d := range fields {
		if different && strings.EqualFold(d.what, "field Content-Length") {
			continue // follows from the body
		}
		out = append(out, d)
	}
	if different {
		d := difference{"body", "other", "", ""}
		d.want, d.got = excerpts(a.body, b.body)
		out = append(out, d)
	}
	return out
}

func afterVersion(tls string) string {
	_, rest, _ := strings.Cut(tls, ", ")
	return rest
}

func describe(a *answer) string {
	if a.failure != "" {
		return a.failure
	}
	line, _, _ := bytes.Cut(a.text, []byte("\r\n"))
	return string(line)
}

// compareFields compares fields by name, then their order.
func compareFields(prefix string, a, b []string) []difference {
	if slices.Equal(a, b) {
		return nil
	}
	var out []difference
	group := func(list []string) (names []string, values map[string][]string) {
		values = map[string][]string{}
		for _, f := range list {
			name, value, _ := strings.Cut(f, ":")
			if values[name] == nil {
				names = append(names, name)
			}
			values[name] = append(values[name], strings.TrimSpace(value))
		}
		return names, values
	}
	an, av := group(a)
	bn, bv := group(b)
	for _, n := range an {
		switch {
		case bv[n] == nil:
			out = append(out, difference{prefix + n, "missing", n + ": " + strings.Join(av[n], " | "), "(none)"})
		case !slices.Equal(av[n], bv[n]):
			out = append(out, difference{prefix + n, "other", n + ": " + strings.Join(av[n], " | "), n + ": " + strings.Join(bv[n], " | ")})
		}
	}
	for _, n := range bn {
		if av[n] == nil {
			out = append(out, difference{prefix + n, "added", "(none)", n + ": " + strings.Join(bv[n], " | ")})
		}
	}
	if len(out) == 0 {
		out = append(out, difference{prefix + "order", "order", strings.Join(an, ", "), strings.Join(bn, ", ")})
	}
	return out
}

// compareUpstream compares what upstreams got.
func compareUpstream(a, b []upstreamRequest) []difference {
	if len(a) != len(b) {
		name := func(list []upstreamRequest) string {
			var out []string
			for _, r := range list {
				line, _, _ := strings.Cut(r.Head, "\r\n")
				out = append(out, line+" to "+r.To)
			}
			if out == nil {
				return "(none)"
			}
			return strings.Join(out, "; ")
		}
		return []difference{{"upstream requests", "other", name(a), name(b)}}
	}
	a, b = inOrder(a), inOrder(b)
	var out []difference
	for i := range a {
		if a[i] == b[i] {
			continue
		}
		x, y := parseMessage(nginxVersion.ReplaceAllString(a[i].Head, "nginx")), parseMessage(nginxVersion.ReplaceAllString(b[i].Head, "nginx"))
		xl, xv := cutLast(x.first)
		yl, yv := cutLast(y.first)
		if xl != yl {
			out = append(out, difference{"upstream request line", "other", xl, yl})
		}
		if xv != yv {
			out = append(out, difference{"upstream version", "other", xv, yv})
		}
		if a[i].To != b[i].To {
			out = append(out, difference{"upstream server", "other", a[i].To, b[i].To})
		}
		if a[i].Body == bodyMissing && b[i].Body == "" && y.field("Content-Length") == "" {
			out = append(out, difference{whatLength, "other", "Content-Length: " + x.field("Content-Length") + " " + bodyMissing, "(none)"})
			x.fields = slices.DeleteFunc(x.fields, func(f string) bool { return strings.HasPrefix(f, "Content-Length:") })
			a[i].Body = ""
		}
		trim := func(list []string) []string {
			return slices.DeleteFunc(list, func(f string) bool { return f == "" })
		}
		out = append(out, compareFields("upstream field ", trim(x.fields), trim(y.fields))...)
		if a[i].Body != b[i].Body {
			d := difference{"upstream body", "other", "", ""}
			d.want, d.got = excerpts(a[i].Body, b[i].Body)
			out = append(out, d)
		}
	}
	return out
}

const whatLength = "upstream length without a body"

// inOrder makes one order of requests that were on their way at the same time.
func inOrder(list []upstreamRequest) []upstreamRequest {
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b upstreamRequest) int {
		return strings.Compare(a.Head+"\x00"+a.To, b.Head+"\x00"+b.To)
	})
	return list
}

func cutLast(line string) (before, last string) {
	i := strings.LastIndexByte(line, ' ')
	if i < 0 {
		return line, ""
	}
	return line[:i], line[i+1:]
}

// excerpts shows two texts from a little before where they part.
func excerpts(a, b string) (string, string) {
	i := 0
	for i < len(a) && i < len(b) && a[i] == b[i] {
		i++
	}
	from := max(0, i-30)
	cut := func(s string) string {
		if len(s) == 0 {
			return "(empty)"
		}
		end := min(len(s), i+60)
		text := s[min(from, len(s)):end]
		if from > 0 {
			text = "..." + text
		}
		if end < len(s) {
			text += "..."
		}
		return fmt.Sprintf("%q (%d bytes)", text, len(s))
	}
	return cut(a), cut(b)
}

// askedOtherwise says that upstreams may have come to another state: they were
// asked another number of times, or took part in another answer.
func askedOtherwise(want, got *answer) bool {
	return len(want.upstream) != len(got.upstream) ||
		len(want.upstream) > 0 && (want.failure != got.failure || statusOf(headOf(want.text)) != statusOf(headOf(got.text)))
}

// sameUpstream makes all upstreams one, for answers from where on their turns
// cannot be compared.
func (c *comparison) sameUpstream(a *answer) {
	const one = "one-of-the-upstreams"
	for to, from := range c.backends.original {
		a.text = bytes.ReplaceAll(bytes.ReplaceAll(a.text, []byte(to), []byte(one)), []byte(from), []byte(one))
		for i := range a.upstream {
			u := &a.upstream[i]
			u.Head = strings.ReplaceAll(strings.ReplaceAll(u.Head, to, one), from, one)
			u.To = one
		}
	}
}
