package proxy

// ngx_http_copy_filter_module: the buffers that nginx reads files into.

func copyFilterModule() Module {
	return Module{Name: "ngx_http_copy_filter_module", Commands: []Command{
		Buffer(Command{
			Name: "output_buffers", In: inHTTPLevels, Default: "2 32k", Doc: "Accepted without effect.", Status: NoEffect,
			Reason: "files are sent by sendfile(2), or through buffers that are shared",
		}, func(c *Conf) *Buffers { return &c.Core.unused.buffers }),
	}}
}
