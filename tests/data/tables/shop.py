"""A small shop of made-up people, posts and applications, as files to read."""

SCHEMA = """
name = 'shop'

[candidate]
years = {kind = 'integer', low = 0, high = 60, column = 'Years at work'}
pay = {kind = 'number', low = 0, missing = ['on request']}
skills = {kind = 'set', column = 'Skills', separator = ',', synonyms = {'k8s' = 'Kubernetes'}}
shift = {kind = 'category', values = ['Days', 'Nights', 'Any']}
drives = {kind = 'boolean'}
letter = {kind = 'text'}

[job]
min_years = {kind = 'integer', low = 0, high = 60}
budget = {kind = 'number', low = 0}
needs = {kind = 'set', separator = ','}
shift = {kind = 'category', values = ['Days', 'Nights', 'Any']}
drives = {kind = 'boolean'}
about = {kind = 'text', required = true}

[layers.must]
hard = true
years = {candidate = 'years', job = 'min_years', compare = 'at_least', perspective = 'qualification'}
drives = {candidate = 'drives', job = 'drives', compare = 'same', perspective = 'qualification'}

[layers.fit]
pay = {candidate = 'pay', job = 'budget', compare = 'at_most', unit = 'euros', perspective = 'both'}
skills = {candidate = 'skills', job = 'needs', compare = 'covers', needed = 0.6, perspective = 'both'}
shift = {candidate = 'shift', job = 'shift', compare = 'same', anything = 'Any', perspective = 'both'}
story = {candidate = 'letter', job = 'about', compare = 'text', perspective = 'both'}
"""  # noqa: E501
TABLES = """
[tables.candidates]
file = 'people.csv'
id = 'person'

[tables.jobs]
file = 'posts.csv'
id = 'post'

[tables.interactions]
file = 'log.csv'
candidate = 'person'
job = 'post'
"""
PEOPLE = """person,Years at work,pay,Skills,shift,drives,letter,shoe size
1,3,2500,"python, k8s",days,yes,"Likes, commas",41
2,12.0,on request,"SQL,Kubernetes,sql",Any,no,,42
3,,2100.5,,NIGHTS,,"two
lines",43
4,0,0,"""
PEOPLE += '''"""C, the language"", python",,0,"a ""quote""",44
'''
POSTS = """post,min_years,budget,needs,shift,drives,about
10,2,2600,"Python,KUBERNETES",Days,1,Servers
11,5,3000,,Nights,0,Nights on call
12.0,0,2000,"SQL",Any,,Reports
"""


def folder(path, log, rules, people=PEOPLE, posts=POSTS, schema=SCHEMA):
  """Writes the shop's files; `rules` are the last lines of [tables.interactions]."""
  for name, text in (('people.csv', people), ('posts.csv', posts), ('log.csv', log),
                     ('schema.toml', schema + TABLES + rules)):
    (path / name).write_text(text, encoding='utf-8', newline='')
  return path
