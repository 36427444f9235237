package proxy

import "testing"

func TestBrowser(t *testing.T) {
	const server = `modern_browser msie 5.5; modern_browser gecko 1.0.1; modern_browser safari 2.0; modern_browser unlisted;
		ancient_browser Links Lynx netscape4; modern_browser_value new; return 200 "[$modern_browser][$ancient_browser][$msie]";`
	const opera = `modern_browser opera 9.0; modern_browser msie 6.0; return 200 "[$modern_browser][$ancient_browser][$msie]";`
	agent := func(a string) string { return "GET /\nUser-Agent: " + a }
	testWire(t, []wireCase{
		{name: "msie", server: server, request: agent("Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1)"), want: "200\n[new][][1]"},
		{name: "old msie", server: server, request: agent("Mozilla/4.0 (compatible; MSIE 5.01; Windows NT 5.1)"), want: "200\n[][1][1]"},
		{name: "gecko", server: server, request: agent("Mozilla/5.0 (X11; U; Linux i686; en-US; rv:1.0.1) Gecko/20020610"), want: "200\n[new][][]"},
		{name: "old gecko", server: server, request: agent("Mozilla/5.0 (X11; U; Linux i686; en-US; rv:1.0.0) Gecko/20020610"), want: "200\n[][1][]"},
		{name: "unnamed opera", server: server, request: agent("Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.0; en) Opera 8.0"), want: "200\n[][1][]"},
		{name: "netscape", server: server, request: agent("Mozilla/4.72 [en] (X11; U)"), want: "200\n[][1][]"},
		{name: "lynx", server: server, request: agent("Lynx/2.8"), want: "200\n[][1][]"},
		{name: "other", server: server, request: agent("curl/8"), want: "200\n[new][][]"},
		{name: "none", server: server, request: "GET /", want: "200\n[new][][]"},
		{name: "opera", server: opera, request: agent("Opera/9.01 (X11; FreeBSD 6 i386; U; en)"), want: "200\n[1][][]"},
		{name: "old opera", server: opera, request: agent("Opera/8.0 (Windows NT 5.1; U; ru)"), want: "200\n[][1][]"},
		{name: "unlisted", server: opera, request: agent("curl/8"), want: "200\n[][1][]"},
	})
}
