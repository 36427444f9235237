package proxy

import (
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
	"os"

	"github.com/quic-go/quic-go"

	"proxyctl/parser"
)

// HTTP/3: ngx_http_v3_module. The exchange itself is in stream_http3.go, the
// sockets are in quic.go.

// http3Conf is what the module knows at a level.
type http3Conf struct {
	enabled, hq, gso bool
	retry            bool
	streams          int
	bufferSize       int64
	connectionIDs    int
	hostKey          []byte
	hostKeyOf        *Level // that set it
}

func http3Module() Module {
	return Module{
		Name: "ngx_http_v3_module", Commands: http3Commands(),
		Variables: []Variable{{Name: "http3", Get: func(dst []byte, x *Exchange, _ string) ([]byte, bool) {
			if x.client.quic {
				dst = append(dst, "h3"...)
			}
			return dst, true
		}}},
		Init: func(c *Conf) {
			c.HTTP3 = http3Conf{enabled: true, streams: 128, bufferSize: 64 << 10, connectionIDs: 2}
		},
	}
}

func quicBPFModule() Module {
	return Module{Name: "ngx_quic_bpf_module", Commands: Ignored(InMain, "flag",
		"one process has all connections of QUIC and finds each by its identifier", "quic_bpf")}
}

func http3Commands() []Command {
	const in = InHTTP | InServer
	return []Command{
		Flag(Command{Name: "http3", In: in, Default: "on", Differs: "frames and fields that RFC 9114 forbids end the stream or connection, also where nginx lets them pass", Doc: "Serves HTTP/3 on listeners with quic."}, func(c *Conf) *bool { return &c.HTTP3.enabled }),
		refuseOn(Flag(Command{Name: "http3_hq", In: in, Default: "off", Doc: "Accepted as off."}, func(c *Conf) *bool { return &c.HTTP3.hq })),
		Number(Command{Name: "http3_max_concurrent_streams", In: in, Default: "128", Doc: "Limits the requests of a connection that are served at a time."}, func(c *Conf) *int { return &c.HTTP3.streams }),
		Size(Command{Name: "http3_stream_buffer_size", In: in, Default: "64k", Doc: "Sets how much of a request may arrive before it is read."}, func(c *Conf) *int64 { return &c.HTTP3.bufferSize }),
		Flag(Command{Name: "quic_retry", In: in, Default: "off", Doc: "Has clients prove their address before a connection begins."}, func(c *Conf) *bool { return &c.HTTP3.retry }),
		Flag(Command{
			Name: "quic_gso", In: in, Default: "off", Doc: "Accepted without effect.", Status: NoEffect,
			Reason: "packets are sent in batches wherever the kernel can do that",
		}, func(c *Conf) *bool { return &c.HTTP3.gso }),
		{Name: "quic_host_key", In: in, Args: "1", Repeat: true, Syntax: "file", Differs: "a new key counts for an address that is listened on already when the server is started again", Doc: "Sets the key of tokens, which lets them outlive the process.", Set: setQUICHostKey},
		Number(Command{
			Name: "quic_active_connection_id_limit", In: in, Default: "2", Doc: "Accepted without effect.", Status: NoEffect,
			Reason: "clients may keep four connection identifiers in use",
		}, func(c *Conf) *int { return &c.HTTP3.connectionIDs }),
	}
}

// refuseOn lets a flag be off only.
func refuseOn(c Command) Command {
	set := c.Set
	c.Set = func(l *Level, d *parser.Directive) error {
		if err := set(l, d); err != nil {
			return err
		}
		if l.Conf.HTTP3.hq {
			return sayAt(d.Args[0], "U001", "hq-interop is HTTP/0.9 over QUIC, for tests between implementations; remove the directive", "%q is not supported by proxyctl", "http3_hq on")
		}
		return nil
	}
	return c
}

// setQUICHostKey reads a key (ngx_http_quic_host_key).
func setQUICHostKey(l *Level, d *parser.Directive) error {
	h := &l.Conf.HTTP3
	if h.hostKeyOf == l {
		return &confError{text: "is duplicate"}
	}
	name := l.c.opts.confRelative(d.Args[0].Value)
	key, err := os.ReadFile(name)
	switch {
	case err != nil && l.c.opts.mayMiss(name):
		return nil
	case err != nil:
		return sayAt(d.Args[0], "", "", "%v", errorWithCode(fmt.Sprintf("open() %q failed", name), err))
	case len(key) == 0:
		return sayAt(d.Args[0], "", "", "%q zero key size", name)
	}
	h.hostKey, h.hostKeyOf = key, l
	return nil
}

// keys makes the keys of address tokens and of stateless resets; nil without a
// host key: then they are random.
func (h *http3Conf) keys() (*quic.TokenGeneratorKey, *quic.StatelessResetKey) {
	if len(h.hostKey) == 0 {
		return nil, nil
	}
	derive := func(what string) (key [32]byte) {
		b, err := hkdf.Key(sha256.New, h.hostKey, nil, what, len(key))
		if err == nil {
			copy(key[:], b)
		}
		return key
	}
	token, reset := quic.TokenGeneratorKey(derive("av_token_key")), quic.StatelessResetKey(derive("sr_token_key"))
	return &token, &reset
}
