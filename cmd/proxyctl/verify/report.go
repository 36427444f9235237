package verify

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"proxyctl/proxy"
)

// Report is what was found. Its JSON form is stable: fields may be added.
type Report struct {
	Nginx    string `json:"nginx"`
	Version  string `json:"version"`
	Compared int    `json:"compared"`          // requests that both answered
	Skipped  int    `json:"skipped,omitempty"` // for lack of time
	Unstable int    `json:"unstable,omitempty"`
	// UnstableWhat says in what nginx, or this server, differs from itself,
	// shortened.
	UnstableWhat []string `json:"unstableWhat,omitempty"`
	Log          *LogInfo `json:"log,omitempty"`
	// Differences are what this server does otherwise, Changes what newer
	// versions of nginx do otherwise too.
	Differences []Finding   `json:"differences"`
	Changes     []Finding   `json:"changes"`
	Stricter    []Finding   `json:"stricter"` // refused here on purpose
	LeftOut     []*leftOut  `json:"leftOut"`
	Servers     Coverage    `json:"servers"`
	Locations   Coverage    `json:"locations"`
	NotReached  []Unreached `json:"notReached"`
	Seconds     float64     `json:"seconds"`
	Kept        string      `json:"kept,omitempty"` // the folder that was not removed
}

// Equal says that no difference was found.
func (r *Report) Equal() bool { return len(r.Differences) == 0 }

// Coverage counts blocks.
type Coverage struct {
	Reached int `json:"reached"`
	Of      int `json:"of"`
}

// Unreached is a block that no request came to.
type Unreached struct {
	Title string `json:"title"`
	Place string `json:"place"`
	Why   string `json:"why"`
}

// Finding is a class of differences, shown by one of them.
type Finding struct {
	What     string   `json:"what"`
	How      string   `json:"how"`
	Nginx    string   `json:"nginx"`
	Here     string   `json:"here"`
	Count    int      `json:"count"`   // requests
	Request  string   `json:"request"` // as sent, shortened
	Try      string   `json:"try"`     // a command
	About    string   `json:"about"`   // why the request was made
	Place    string   `json:"place,omitempty"`
	Server   string   `json:"server,omitempty"`
	Location string   `json:"location,omitempty"`
	Others   []string `json:"others,omitempty"` // places with the same difference
	Since    string   `json:"since,omitempty"`  // version of nginx
	Note     string   `json:"note,omitempty"`

	stricter bool
}

// describe fills the report.
func (c *comparison) describe(found map[int][]difference, answers []*answer) {
	r := c.report
	r.Differences, r.Changes, r.Stricter = []Finding{}, []Finding{}, []Finding{}
	r.LeftOut, r.NotReached = []*leftOut{}, []Unreached{}
	classes := map[string]*Finding{}
	var order []string
	for i, req := range c.requests {
		for _, d := range found[i] {
			why := stricter(req, &d)
			key := d.key()
			change := knownChange(req, &d, c.Version)
			switch {
			case why != "":
				key = why
			case change != nil:
				key = change.text
			}
			f := classes[key]
			if f == nil {
				f = c.finding(req, &d)
				switch {
				case why != "":
					f.Note, f.stricter = why, true
				case change != nil:
					f.Since, f.Note = change.since, change.text
				}
				classes[key] = f
				order = append(order, key)
			} else if len(f.Others) < 5 && req.Place != f.Place && !slices.Contains(f.Others, req.Place) {
				f.Others = append(f.Others, req.Place)
			}
			f.Count++
		}
	}
	for _, key := range order {
		switch f := classes[key]; {
		case f.stricter:
			r.Stricter = append(r.Stricter, *f)
		case f.Since != "":
			r.Changes = append(r.Changes, *f)
		default:
			r.Differences = append(r.Differences, *f)
		}
	}
	for _, name := range c.rewriter.order {
		r.LeftOut = append(r.LeftOut, c.rewriter.left[name])
	}
	c.cover(answers)
	r.Seconds = time.Since(c.started).Round(time.Millisecond).Seconds()
}

func (c *comparison) finding(r *request, d *difference) *Finding {
	f := &Finding{What: d.what, How: d.how, Nginx: c.shown(d.want), Here: c.shown(d.got), About: r.Why, Place: r.Place, Request: c.shown(shorten(r.wire())), Try: c.command(r)}
	if r.what != "" {
		f.About += "; " + r.what
	}
	if x := c.explain(r); x != nil {
		for _, s := range x.Steps {
			switch s.What {
			case "server":
				f.Server = s.Text + " (" + s.Place + ")"
			case "location":
				f.Location = s.Text + " (" + s.Place + ")"
			}
		}
	}
	return f
}

// shown puts the addresses of the configuration in the place of those that were
// used.
func (c *comparison) shown(text string) string {
	for _, m := range []map[string]string{c.original, c.backends.original} {
		for to, from := range m {
			if strings.Contains(text, to) {
				text = strings.ReplaceAll(text, to, from)
			}
		}
	}
	return text
}

const maxShown = 600

func shorten(s string) string {
	if len(s) > maxShown {
		return s[:maxShown] + fmt.Sprintf("... (%d bytes)", len(s))
	}
	return s
}

// explain finds the way of a request through the table.
func (c *comparison) explain(r *request) *proxy.Explanation {
	if r.raw && r.what == whatPlainToTLS || r.raw && r.Place == "" {
		return nil
	}
	x, err := proxy.Explain(c.table, &proxy.Question{
		Method: r.Method, TLS: r.To.TLS, Host: r.Host, Target: r.Target, Fields: r.Fields, To: r.To.Address, From: netip.AddrFrom4([4]byte{127, 0, 0, 1}),
	})
	if err != nil {
		return nil
	}
	return x
}

// command is how to ask the servers of the configuration itself.
func (c *comparison) command(r *request) string {
	address := c.original[r.To.Address.String()]
	if address == "" {
		address = r.To.Address.String()
	}
	port := "80"
	if _, p, err := net.SplitHostPort(address); err == nil {
		port = p
	}
	if r.raw {
		if r.To.TLS && r.what != whatPlainToTLS {
			return fmt.Sprintf("printf %s | openssl s_client -quiet -connect 127.0.0.1:%s -servername %s", quoteShell(printfEscape(shorten(r.wire()))), port, r.name())
		}
		return fmt.Sprintf("printf %s | nc 127.0.0.1 %s", quoteShell(printfEscape(shorten(r.wire()))), port)
	}
	b := strings.Builder{}
	b.WriteString("curl -i")
	scheme := "http"
	if r.To.TLS {
		scheme = "https"
		b.WriteString("k")
	}
	b.WriteString(" --path-as-is")
	switch r.Method {
	case http.MethodGet:
	case http.MethodHead:
		b.WriteString(" -I")
	default:
		b.WriteString(" -X " + quoteShell(r.Method))
	}
	for _, f := range r.Fields {
		b.WriteString(" -H " + quoteShell(f))
	}
	if r.body != "" {
		b.WriteString(" -d " + quoteShell(r.body))
	}
	name := r.name()
	switch {
	case r.Host == "":
		name = "127.0.0.1"
		b.WriteString(" -0 -H Host:")
	case name == "":
		name = "127.0.0.1"
		b.WriteString(" -H " + quoteShell("Host: "+r.Host))
	default:
		if !strings.EqualFold(r.Host, name) {
			b.WriteString(" -H " + quoteShell("Host: "+r.Host))
		}
		b.WriteString(" --resolve " + name + ":" + port + ":127.0.0.1")
	}
	if port != map[string]string{"http": "80", "https": "443"}[scheme] {
		name += ":" + port
	}
	return b.String() + " " + quoteShell(scheme+"://"+name+r.Target)
}

func quoteShell(s string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-:,+=@"
	if s != "" && strings.Trim(s, plain) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

func printfEscape(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		switch {
		case c == '\r':
			b.WriteString(`\r`)
		case c == '\n':
			b.WriteString(`\n`)
		case c == '%':
			b.WriteString(`%%`)
		case c == '\\':
			b.WriteString(`\\`)
		case c < ' ' || c > '~':
			fmt.Fprintf(&b, `\%03o`, c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// The bounds of the account of what was reached.
const (
	timeToCover  = 10 * time.Second
	maxUnreached = 200
)

// cover finds out which blocks were reached, by asking the table.
func (c *comparison) cover(answers []*answer) {
	reached := map[string]bool{}
	instead := map[string]string{} // where the requests for a block came to
	end := time.Now().Add(timeToCover)
	cut := false
	look := func(r *request) {
		x := c.explain(r)
		if x == nil {
			return
		}
		last := ""
		for _, s := range x.Steps {
			if s.What == "server" || s.What == "location" {
				reached[s.Place] = true
				last = s.Text + " (" + s.Place + ")"
			}
			if s.What == "rewrite" && last == "" {
				last = s.Text
			}
		}
		if instead[r.Place] == "" {
			instead[r.Place] = last
		}
	}
	for _, base := range []bool{true, false} {
		for i, r := range c.requests {
			if r.raw || r.what != "" || r.Base != base || i >= len(answers) {
				continue
			}
			if !base && reached[r.Place] {
				continue
			}
			if cut = cut || time.Now().After(end); !cut {
				look(r)
			}
		}
	}
	for _, b := range c.table.Blocks() {
		count := &c.report.Locations
		if b.Server == "" {
			count = &c.report.Servers
		}
		count.Of++
		if reached[b.Place] {
			count.Reached++
			continue
		}
		if len(c.report.NotReached) < maxUnreached {
			c.report.NotReached = append(c.report.NotReached, Unreached{b.Title, b.Place, whyNot(&b, reached, instead, cut)})
		}
	}
}

func whyNot(b *proxy.BlockInfo, reached map[string]bool, instead map[string]string, cut bool) string {
	switch {
	case b.Named:
		return "only error_page or try_files lead here; what upstreams answered may have"
	case cut && instead[b.Place] == "":
		return "not looked at, for lack of time"
	case b.Server != "" && !reached[b.Server]:
		return "its server was not reached"
	case b.Server == "":
		return "no name or address leads here: other servers have them all"
	case instead[b.Place] != "":
		return "requests made for it came to " + instead[b.Place]
	}
	return "no request was found that comes here"
}
