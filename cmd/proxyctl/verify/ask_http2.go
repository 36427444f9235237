package verify

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// askHTTP2 sends a request over HTTP/2. The answer is written as one of
// HTTP/1, with its fields in the order of the alphabet: the client does not tell
// their own.
func askHTTP2(r *request, patience time.Duration) answer {
	t := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", r.To.Address.String())
		},
		TLSClientConfig:    &tls.Config{ServerName: r.name(), InsecureSkipVerify: true, NextProtos: []string{"h2"}}, // #nosec G402 -- as in ask
		ForceAttemptHTTP2:  true,
		DisableCompression: true,
	}
	defer t.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req := (&http.Request{
		Method: r.Method, URL: &url.URL{Scheme: "https", Host: r.Host, Opaque: "//" + r.Host + r.Target}, Host: r.Host, Header: http.Header{},
	}).WithContext(ctx)
	for _, f := range r.Fields {
		if name, value, ok := strings.Cut(f, ": "); ok && !strings.EqualFold(name, "connection") && !strings.EqualFold(name, "upgrade") {
			req.Header.Add(name, value)
		}
	}
	res, err := t.RoundTrip(req)
	if err != nil {
		return answer{failure: "no answer by HTTP/2"}
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	var lines []string
	for name, values := range res.Header {
		for _, v := range values {
			lines = append(lines, name+": "+v+"\r\n")
		}
	}
	slices.Sort(lines)
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %d\r\n%s\r\n%s", res.Proto, res.StatusCode, strings.Join(lines, ""), body)
	if err != nil {
		b.WriteString("(broken off)")
	}
	return answer{text: b.Bytes()}
}
