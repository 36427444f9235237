package proxy

import (
	"os"
	"syscall"

	"proxyctl/proxy/http1"
)

// ngx_http_gzip_static_module: answers with files that are compressed already,
// "page.html.gz" beside "page.html".

func gzipStaticModule() Module {
	return Module{
		Name: "ngx_http_gzip_static_module",
		Commands: []Command{
			Enum(Command{Name: "gzip_static", In: inHTTPLevels, Default: "off", Doc: "Sends files that are compressed already."},
				[]string{"off", "on", "always"}, func(c *Conf) *int { return &c.GzipStatic }),
		},
		Phase: Content,
		Handler: func(c *Conf) Handler {
			if c.GzipStatic == gzipStaticOff {
				return nil
			}
			return serveGzipStatic
		},
	}
}

// The words of gzip_static, by index.
const (
	gzipStaticOff = iota
	gzipStaticOn
	gzipStaticAlways
)

// serveGzipStatic answers with the compressed file, if there is one
// (ngx_http_gzip_static_handler).
func serveGzipStatic(x *Exchange) Code {
	if !x.isMethod("GET") && !x.isMethod("HEAD") || x.uri[len(x.uri)-1] == '/' {
		return Declined
	}
	always := x.loc.Conf.GzipStatic == gzipStaticAlways
	takes := always || x.takesGzip()
	if !takes && !x.loc.Conf.Core.Gzip.Vary {
		return Declined
	}
	path := x.keep(x.path(), ".gz")
	if leavesRoot(path) {
		return Declined
	}
	f, err := os.OpenFile(string(path), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		switch errnoOf(err) {
		case syscall.ENOENT, syscall.ENOTDIR, syscall.ENAMETOOLONG:
		default:
			x.openFailed(path, err)
		}
		return Declined
	}
	defer f.Close()
	if !always {
		x.variesByEncoding()
		if !takes {
			return Declined
		}
	}
	info, err := f.Stat()
	switch {
	case err != nil:
		return x.openFailed(path, err)
	case info.IsDir():
		return Declined
	case !info.Mode().IsRegular():
		x.Logf(logCrit, "%q is not a regular file", path)
		return 404
	}
	x.discardBody()
	x.Out.Fields = append(x.Out.Fields, http1.Field{Name: contentEncodingName, Value: gzipCoding, ID: http1.ContentEncoding})
	return x.sendFile(f, info)
}
