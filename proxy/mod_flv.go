package proxy

import "proxyctl/parser"

// ngx_http_flv_module: answers with a file, or with the end of it.

func flvModule() Module {
	return Module{
		Name: "ngx_http_flv_module",
		Commands: []Command{{
			Name: "flv", In: InLocation, Args: "0", Repeat: true, Doc: "Answers with the ends of FLV files, by the argument start.",
			Set: func(l *Level, _ *parser.Directive) error {
				l.Conf.Own.Content = serveFLV
				return nil
			},
		}},
	}
}

// flvHead is what players await before the first tag.
var flvHead = []byte("FLV\x01\x05\x00\x00\x00\x09\x00\x00\x00\x00")

// serveFLV answers with a file from a byte on (ngx_http_flv_handler).
func serveFLV(x *Exchange) Code {
	f, info, code := x.openMedia()
	if code != OK {
		return code
	}
	defer f.Close()
	text, _ := appendArgument(nil, x, "start")
	start, ok := digits(string(text))
	if !ok || start == 0 || start >= info.Size() {
		return x.sendFile(f, info)
	}
	left := info.Size() - start
	if code := x.mediaHead(info, int64(len(flvHead))+left); code != OK || x.headerOnly {
		return headDone(code)
	}
	if x.WriteBody(flvHead, false) != nil {
		return Abort
	}
	return x.sendFilePart(f, start, left, true)
}
