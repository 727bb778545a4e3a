def render(files):
    return "{}\n"
