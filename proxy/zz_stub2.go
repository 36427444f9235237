package proxy
type http2Conf struct{}
func http2Module() Module { return Module{Name:"ngx_http_v2_module"} }
