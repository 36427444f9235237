package certs

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/mholt/acmez/v3/acme"
)

func TestReason(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want string
	}{
		{
			fmt.Errorf("by http-01: [a.com b.com] solving challenge: b.com: [b.com] authorization failed: %w (ca=https://ca.test/dir)", acme.Problem{
				Status: 400, Type: acme.ProblemTypeConnection, Detail: "Get \"http://b.com/x\": refused",
			}),
			`by http-01: b.com: connection: Get "http://b.com/x": refused`,
		},
		{
			errors.New(`by http-01: registering account [mailto:a@site.test] with server: provisioning client: performing request: Get "https://localhost:1/dir": dial tcp [::1]:1: connect: connection refused`),
			`by http-01: Get "https://localhost:1/dir": dial tcp [::1]:1: connect: connection refused`,
		},
		{
			fmt.Errorf("registering account [] with server: provisioning client: HTTP 404: %s", "<h1>\r\n404 not found</h1>\n"),
			"HTTP 404: <h1> 404 not found</h1>",
		},
		{errors.New("[a.com] creating new order: unknown profile name 'x'; supported profiles: map[a:b] (ca=x)"), "creating new order: unknown profile name 'x'; supported profiles: map[a:b]"},
		{errors.New(strings.Repeat("é", maxReason)), strings.Repeat("é", maxReason/2) + "..."},
	} {
		if got := reason(tt.err); got != tt.want {
			t.Errorf("%v:\ngot  %s\nwant %s", tt.err, got, tt.want)
		}
	}
}

func TestUnknownProfile(t *testing.T) {
	for text, want := range map[string]trouble{
		"creating new order: unknown profile name 'x'; supported profiles: map[a:b]":       refused,
		"creating new order: ACME server does not advertise support for profiles: <nil>":   refused,
		"creating new order: something else":                                               unreachable,
		"performing request: Get \"https://ca.test/dir\": net/http: TLS handshake timeout": unreachable,
	} {
		if got := classify(errors.New(text)); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}
