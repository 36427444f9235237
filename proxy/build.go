package proxy

import (
	"slices"
	"strings"
)

// ConfigureArguments says in the words of nginx's configure script what is
// served: --with for the modules that nginx builds on request, --without for
// those it builds by default and that are missing here. Tools such as Certbot
// read it from "nginx -V".
func ConfigureArguments() string {
	var names []string
	for _, m := range modules() {
		names = append(names, m.Name, m.Stream)
	}
	has := func(option string) bool {
		name := "ngx_" + strings.TrimSuffix(option, "_module")
		return slices.ContainsFunc(names, func(n string) bool {
			n = strings.TrimSuffix(n, "_module")
			return n == name || n == name+"_filter"
		})
	}
	var args []string
	for _, option := range onRequest() {
		if has(option) {
			args = append(args, "--with-"+option)
		}
	}
	for _, option := range byDefault() {
		if !has(option) {
			args = append(args, "--without-"+option)
		}
	}
	return strings.Join(args, " ")
}

// onRequest are the modules behind --with in nginx's auto/options.
func onRequest() []string {
	return []string{
		"http_ssl_module", "http_v2_module", "http_v3_module", "http_realip_module", "http_addition_module",
		"http_sub_module", "http_dav_module", "http_flv_module", "http_mp4_module", "http_gunzip_module", "http_gzip_static_module",
		"http_auth_request_module", "http_random_index_module", "http_secure_link_module", "http_slice_module",
		"http_stub_status_module",
		"stream", "stream_ssl_module", "stream_realip_module", "stream_geoip_module", "stream_ssl_preread_module",
	}
}

// byDefault are the modules behind --without in nginx's auto/options.
func byDefault() []string {
	return []string{
		"http_charset_module", "http_gzip_module", "http_ssi_module", "http_userid_module", "http_access_module",
		"http_auth_basic_module", "http_mirror_module", "http_autoindex_module", "http_geo_module",
		"http_map_module", "http_split_clients_module", "http_referer_module", "http_rewrite_module",
		"http_proxy_module", "http_fastcgi_module", "http_uwsgi_module", "http_scgi_module", "http_grpc_module",
		"http_tunnel_module", "http_memcached_module", "http_limit_conn_module", "http_limit_req_module",
		"http_empty_gif_module", "http_browser_module", "http_upstream_hash_module",
		"http_upstream_ip_hash_module", "http_upstream_least_conn_module", "http_upstream_least_time_module",
		"http_upstream_random_module", "http_upstream_keepalive_module", "http_upstream_zone_module",
		"http_upstream_sticky_module",
		"stream_limit_conn_module", "stream_access_module", "stream_geo_module", "stream_map_module",
		"stream_split_clients_module", "stream_return_module", "stream_pass_module", "stream_set_module",
		"stream_upstream_hash_module", "stream_upstream_least_conn_module", "stream_upstream_least_time_module",
		"stream_upstream_random_module", "stream_upstream_zone_module",
	}
}
