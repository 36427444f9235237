package validators

import (
	"encoding/json"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	_ "github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/standard"
	_ "github.com/caddyserver/caddy/v2/modules/caddypki"
	_ "github.com/caddyserver/caddy/v2/modules/caddytls"
	_ "github.com/caddyserver/caddy/v2/modules/caddytls/standardstek"
	_ "github.com/caddyserver/caddy/v2/modules/filestorage"
	"github.com/google/go-cmp/cmp"
)

// adaptCaddy judges a Caddyfile as "caddy validate" and "caddy fmt" do, and
// returns what it comes to.
func adaptCaddy(t *testing.T, text string) *caddy.Config {
	t.Helper()
	if diff := cmp.Diff(string(caddyfile.Format([]byte(text))), text); diff != "" {
		t.Errorf("caddy fmt: %s", diff)
	}
	adapted, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	for _, w := range warnings {
		t.Errorf("line %d: %s: %s", w.Line, w.Directive, w.Message)
	}
	read := func() *caddy.Config {
		var c caddy.Config
		if err := json.Unmarshal(adapted, &c); err != nil {
			t.Fatal(err)
		}
		off := false
		c.Admin = &caddy.AdminConfig{Disabled: true, Config: &caddy.ConfigSettings{Persist: &off}}
		c.Logging = &caddy.Logging{Logs: map[string]*caddy.CustomLog{"default": {BaseLog: caddy.BaseLog{Level: "ERROR"}}}}
		return &c
	}
	if err := caddy.Validate(read()); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return read()
}

// serveCaddy serves a Caddyfile until the test ends.
func serveCaddy(t *testing.T, text string) {
	t.Helper()
	c := adaptCaddy(t, text)
	if err := caddy.Run(c); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
	})
}
