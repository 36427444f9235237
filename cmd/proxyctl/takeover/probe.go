package takeover

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"
)

// Probe is a question to the server, harmless to ask again and again.
type Probe struct {
	Network string // tcp or unix
	Address string
	Host    string // "" for none
	TLS     bool
	Proxied bool // the address wants a PROXY protocol header

	answered string
}

func (p *Probe) String() string {
	scheme := "http"
	if p.TLS {
		scheme = "https"
	}
	return fmt.Sprintf("%s://%s on %s", scheme, p.Host, p.Address)
}

const timeToAnswer = 5 * time.Second

// ask gives the status, or what happened instead.
func (p *Probe) ask(ctx context.Context) string {
	d := net.Dialer{Timeout: timeToAnswer}
	c, err := d.DialContext(ctx, p.Network, p.Address)
	if err != nil {
		return "no connection"
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(timeToAnswer))
	if p.Proxied {
		_, _ = fmt.Fprint(c, "PROXY TCP4 127.0.0.1 127.0.0.1 49152 80\r\n")
	}
	if p.TLS {
		t := tls.Client(c, &tls.Config{ServerName: p.Host, InsecureSkipVerify: true}) // #nosec G402 -- it is asked whether somebody answers, nothing else
		if err := t.Handshake(); err != nil {
			return "no TLS"
		}
		c = t
	}
	host := p.Host
	if host == "" {
		host = "localhost"
	}
	_, _ = fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\nUser-Agent: proxyctl\r\nConnection: close\r\n\r\n", host)
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return "no answer"
	}
	_ = r.Body.Close()
	return fmt.Sprint(r.StatusCode)
}

// before asks what is answered by what runs now.
func (p *Plan) before(ctx context.Context) error {
	for i := range p.Probes {
		if err := ctx.Err(); err != nil {
			return err
		}
		p.Probes[i].answered = p.Probes[i].ask(ctx)
	}
	return nil
}

// after asks again: nothing that was answered may fail.
func (p *Plan) after(ctx context.Context) error {
	var worse []string
	for i := range p.Probes {
		q := &p.Probes[i]
		now := q.ask(ctx)
		for try := 0; isWorse(q.answered, now) && try < 3; try++ {
			if err := sleep(ctx, 200*time.Millisecond); err != nil {
				return err
			}
			now = q.ask(ctx)
		}
		switch {
		case isWorse(q.answered, now):
			worse = append(worse, fmt.Sprintf("%s: %s, before: %s", q, now, q.answered))
		case now != q.answered:
			fmt.Fprintf(p.Out, "     note: %s: %s, before: %s\n", q, now, q.answered)
		}
	}
	if worse != nil {
		return fmt.Errorf("it is answered worse than before: %s", strings.Join(worse[:min(len(worse), 3)], "; "))
	}
	return ctx.Err()
}

func isWorse(before, now string) bool {
	good := func(s string) bool { return len(s) == 3 && s[0] >= '1' && s[0] <= '4' }
	return good(before) && !good(now) || len(before) == 3 && len(now) != 3
}
