package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/rogpeppe/go-internal/testscript"

	"proxyctl/proxy"
)

// getFlags are what may stand before the address.
type getFlags struct {
	cert        string
	alpn        []string
	http2       bool
	http3       bool
	unexplained bool
	resume      bool
}

// cutGetFlags takes the flags off the front.
func cutGetFlags(ts *testscript.TestScript, args []string) (f getFlags, rest []string) {
	for strings.HasPrefix(args[0], "-") {
		switch name, value, _ := strings.Cut(args[0], "="); name {
		case "-cert":
			f.cert = value
		case "-h2":
			f.http2 = true
		case "-h3":
			f.http3 = true
		case "-unexplained":
			f.unexplained = true
		case "-resume":
			f.resume, f.unexplained = true, true
		default:
			ts.Fatalf("get has no flag %s", args[0])
		}
		args = args[1:]
	}
	return f, args
}

// get [-cert=NAME] [-h2] [-h3] [-resume] [-unexplained] URL [Name: value]...: a GET on a
// connection of its own, with -resume in the TLS session of the one before if the
// server agrees; prints the answer. The URL's host is sent as Host, the connection goes
// to 127.0.0.1. With ! the handshake of https must fail. Explain must say the same,
// unless the answer depends on what happened before.
func scriptGet(ts *testscript.TestScript, neg bool, args []string) {
	h := harnessOf(ts)
	flags, args := cutGetFlags(ts, args)
	if flags.http2 || flags.http3 {
		t := h.overHTTP2()
		if flags.http3 {
			t = h.overHTTP3(ts, flags)
		}
		h.getFrames(ts, neg, t, args)
		return
	}
	rest, https := strings.CutPrefix(args[0], "https://")
	host, path, _ := strings.Cut(strings.TrimPrefix(rest, "http://"), "/")
	name, port, err := net.SplitHostPort(host)
	ts.Check(err)
	c, err := net.Dial("tcp", "127.0.0.1:"+h.translate(port))
	ts.Check(err)
	defer c.Close()
	if https {
		if c, err = h.secure(ts, c, name, flags); neg {
			if err == nil {
				ts.Fatalf("the handshake did not fail")
			}
			return
		}
		ts.Check(err)
	}
	request := "GET /" + path + " HTTP/1.1\r\nHost: " + h.translate(host) + "\r\nConnection: close\r\n"
	for _, field := range args[1:] {
		request += field + "\r\n"
	}
	_, err = io.WriteString(c, request+"\r\n")
	ts.Check(err)
	answer, _ := read(c, untilSilent, false)
	if !flags.unexplained {
		h.agree(ts, answer, port, &proxy.Question{Method: "GET", TLS: https, Host: h.translate(host), Target: "/" + path, Fields: args[1:]}, flags.cert)
	}
	fmt.Fprint(ts.Stdout(), h.restore(answer))
}

// client asks over HTTP/2 or HTTP/3.
type client interface {
	http.RoundTripper
	CloseIdleConnections()
}

func (h *harness) overHTTP2() client {
	t := &http.Transport{
		Protocols: new(http.Protocols), TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableCompression: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			_, port, _ := net.SplitHostPort(address)
			return new(net.Dialer).DialContext(ctx, network, "127.0.0.1:"+port)
		},
	}
	t.Protocols.SetHTTP2(true)
	t.Protocols.SetUnencryptedHTTP2(true)
	return t
}

func (h *harness) overHTTP3(ts *testscript.TestScript, flags getFlags) client {
	return &http3.Transport{
		TLSClientConfig: h.tlsConfig(ts, "", flags), DisableCompression: true,
		Dial: func(ctx context.Context, address string, config *tls.Config, quicConfig *quic.Config) (*quic.Conn, error) {
			_, port, _ := net.SplitHostPort(address)
			return quic.DialAddrEarly(ctx, "127.0.0.1:"+port, config, quicConfig)
		},
	}
}

// getFrames asks over HTTP/2 or HTTP/3. The fields of the answer are in alphabetical
// order.
func (h *harness) getFrames(ts *testscript.TestScript, neg bool, t client, args []string) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.translate(args[0]), http.NoBody)
	ts.Check(err)
	for _, field := range args[1:] {
		name, value, _ := strings.Cut(field, ": ")
		req.Header.Add(name, value)
	}
	defer t.CloseIdleConnections()
	res, err := t.RoundTrip(req)
	if neg {
		if err == nil {
			ts.Fatalf("there was an answer")
		}
		return
	}
	ts.Check(err)
	defer res.Body.Close()
	var out strings.Builder
	fmt.Fprintf(&out, "%s %s\n", res.Proto, res.Status)
	ts.Check(res.Header.Write(&out))
	out.WriteString("\n")
	_, err = io.Copy(&out, res.Body)
	ts.Check(err)
	ts.Check(res.Trailer.Write(&out))
	fmt.Fprint(ts.Stdout(), h.restore(strings.ReplaceAll(out.String(), "\r\n", "\n")))
}
