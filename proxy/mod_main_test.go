package proxy

import (
	"strings"
	"testing"

	"proxyctl/parser"
)

// The messages are those of nginx 1.31.5.
func TestMainMistakes(t *testing.T) {
	for conf, want := range map[string]string{
		"worker_processes x; events {}":                          `"worker_processes" directive invalid value`,
		"worker_priority -x; events {}":                          `"worker_priority" directive invalid number`,
		"worker_rlimit_nofile x; events {}":                      `"worker_rlimit_nofile" directive invalid number`,
		"worker_cpu_affinity auto 1 1; events {}":                `invalid number of arguments in "worker_cpu_affinity" directive`,
		"worker_cpu_affinity 012; events {}":                     `invalid character "2" in "worker_cpu_affinity"`,
		"thread_pool a threads=0; events {}":                     `invalid threads value "threads=0"`,
		"thread_pool a x; events {}":                             `"thread_pool" must have "threads" parameter`,
		"thread_pool a max_queue=x; events {}":                   `invalid max_queue value "max_queue=x"`,
		"thread_pool a threads=1; thread_pool a threads=1;":      `duplicate thread pool "a"`,
		"load_module m/x.so; events {}":                          `dlopen() "%dir%/m/x.so" failed (%dir%/m/x.so: cannot open shared object file: No such file or directory)`,
		"events {} load_module x;":                               `"load_module" directive is specified too late`,
		"debug_points x; events {}":                              `invalid value "x"`,
		"daemon x; events {}":                                    `invalid value "x" in "daemon" directive, it must be "on" or "off"`,
		"timer_resolution x; events {}":                          `"timer_resolution" directive invalid value`,
		"worker_shutdown_timeout 1M; events {}":                  `"worker_shutdown_timeout" directive invalid value`,
		"lock_file a b; events {}":                               `invalid number of arguments in "lock_file" directive`,
		"env; events {}":                                         `invalid number of arguments in "env" directive`,
		"use epoll; events {}":                                   `"use" directive is not allowed here`,
		"events { worker_connections x; }":                       `invalid number "x"`,
		"events { worker_connections 1; worker_connections 1; }": `"worker_connections" directive is duplicate`,
		"events { use kqueue; }":                                 `invalid event type "kqueue"`,
		"events { use select; }":                                 `invalid event type "select"`,
		"events { debug_connection 10.0.0.0/40; }":               `host not found in debug_connection "10.0.0.0/40"`,
		"events { debug_connection 10.0.0.1/8; }":                `low address bits of 10.0.0.1/8 are meaningless`,
		"events { multi_accept x; }":                             `invalid value "x" in "multi_accept" directive, it must be "on" or "off"`,
		"events { epoll_events x; }":                             `"epoll_events" directive invalid number`,
		"events {} events {}":                                    `"events" directive is duplicate`,
		"events {} http {} http {}":                              `"http" directive is duplicate`,
		"http {}":                                                `no "events" section in configuration`,
	} {
		r := prepare(t)
		_, diags := r.parse(conf)
		if len(diags) == 0 || diags[0].Message != strings.ReplaceAll(want, "%dir%", r.dir) {
			t.Errorf("%s\n%v, want %s", conf, diags, want)
		}
	}
}

func TestMainDefaults(t *testing.T) {
	r := prepare(t)
	m := r.load("events {}").Main
	if m.WorkerProcesses != 1 || m.maxConnections() != 512 || !m.MasterProcess || m.RlimitNofile != -1 {
		t.Errorf("%+v", m)
	}
	m = r.load("pid run/x.pid; worker_processes 3; events { worker_connections 100; } error_log logs/below.log info; http { }").Main
	if m.PID != r.dir+"/run/x.pid" || m.maxConnections() != 300 || m.ErrorLog.most != logInfo {
		t.Errorf("%+v", m)
	}
}

// TestLoadModule: modules of nginx are loaded by not being missed, for each of
// their directives speaks for itself. Those of others are not.
func TestLoadModule(t *testing.T) {
	for name, want := range map[string]string{
		"ngx_http_geoip_module": "", "ngx_http_image_filter_module": "", "ngx_mail_module": "", "ngx_stream_module": "", "ngx_http_acme_module": "",
		"ngx_http_lua_module": `module "ngx_http_lua_module" is not supported by proxyctl`,
	} {
		file := parser.Parse(&parser.Source{Name: "nginx.conf", Text: []byte("load_module m/" + name + ".so; events {}")}, parser.Options{})
		got := ""
		if _, diags := Load(file, &Options{DryRun: true}); len(diags) > 0 {
			got = diags[0].Message
		}
		if got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

// TestTooMuch: of a configuration that is too large nothing else is said.
func TestTooMuch(t *testing.T) {
	file := parser.Parse(&parser.Source{Name: "nginx.conf", Text: []byte("nonsense; events {} http { server { } }")}, parser.Options{})
	http := file.Body.Items[len(file.Body.Items)-1].Block
	http.Items = append(http.Items, &parser.Directive{Err: &parser.Diagnostic{Code: tooLarge, Message: "too much"}})
	table, diags := Load(file, &Options{DryRun: true})
	if table != nil || len(diags) != 1 || diags[0].Code != tooLarge {
		t.Errorf("%d diagnostics, first %v", len(diags), diags[0])
	}
}
