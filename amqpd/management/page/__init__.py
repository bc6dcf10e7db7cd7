"""The web page at the management address, for people with a browser.

A page is made on the server from templates. It asks the routes of the API inside the process, as its user, so it shows
and does nothing that the API would refuse. `table.py` names the modules, one for each family of pages; how a page is
added stands at the top of `templates/parts/README.md`.
"""
